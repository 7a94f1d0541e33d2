"""What the parts of published Meta-World runs do, one at a time, on ML10.

    python experiments/metaworld_ml10_ablations.py [--jobs 2] [--seeds 2] [--only 'rl2_*'] [--dry-run]

5M environment steps, a quarter of the budget of Meta-World+ (2025). The bases are ours, `tuned`; each other row changes
one thing of its base: the weight that a division of advantages by their variance gives a task, the width of MAML's
network, the floor of RL²'s standard deviation, its head.
"""

from dataclasses import replace
from typing import Any

from metarl import Experiment, GaussianMLP
from metarl.cli.study import main
from metarl.presets import make
from metarl.reports.study_columns import SUCCESS, SUCCESS_NOTE
from metarl.runs.studies import Column, Row, Study, steps_of_iteration

ENV_STEPS = 5_000_000


def base(learner: str) -> Experiment:
    """Ours, for so many steps."""
    tuned = make("ml10", learner, "tuned")
    iterations = round(ENV_STEPS / steps_of_iteration(tuned))
    return replace(tuned, iterations=iterations, eval_interval=0, checkpoint_interval=5)


def changed(experiment: Experiment, **fields: Any) -> Experiment:
    """The same with other fields of the learner."""
    return replace(experiment, learner=replace(experiment.learner, **fields))  # type: ignore[type-var]


def with_policy(experiment: Experiment, **fields: Any) -> Experiment:
    """The same with other fields of the learner's policy."""
    return changed(experiment, policy=replace(experiment.learner.policy, **fields))


MAML, RL2 = base("maml"), base("rl2")

STUDY = Study(
    name="metaworld_ml10_ablations",
    title="Meta-World ML10 after 5M environment steps: parts of the published runs, one at a time",
    columns=(Column("training, sampled, any", tag="meta_train/success_post", percent=True), *SUCCESS),
    rows=(
        Row("maml", "MAML, tuned", MAML),
        Row("maml_task_weights", "task weights 1/sd", changed(MAML, task_weights="inverse_std")),
        Row("maml_wide", "2 x 512 units", changed(MAML, policy=GaussianMLP((512, 512), "tanh"))),
        Row("rl2", "RL², tuned", RL2),
        Row("rl2_min_std", "standard deviation at least 0.3", with_policy(RL2, min_std=0.3)),
        Row("rl2_tanh_head", "mean and log standard deviation by tanh", with_policy(RL2, head="tanh")),
    ),
    tags=("meta_train/success_post",),
    note=f"Training: the last five iterations' meta-batches, sampled actions, success at any step. {SUCCESS_NOTE}",
    seeds=2,
)

if __name__ == "__main__":
    main(STUDY, __file__)
