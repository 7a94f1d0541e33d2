"""Meta-World ML1: one environment, 50 goals to train on, 50 others to test on, all hidden.

    python experiments/metaworld_ml1.py [--jobs 2] [--seeds 3] [--only 'push_*'] [--dry-run]

2M environment steps, the budget of Meta-World+ (2025), which reports no number for ML1 by name of the environment.
"""

from dataclasses import replace

from metarl import Experiment
from metarl.cli.study import main
from metarl.presets import make
from metarl.reports.study_columns import SUCCESS, SUCCESS_NOTE
from metarl.runs.studies import Row, Study


def ml1(env: str, learner: str) -> Experiment:
    experiment = make("ml1", learner, "tuned")
    return replace(experiment, task=replace(experiment.task, env=env))


STUDY = Study(
    name="metaworld_ml1",
    title="Meta-World ML1: success on held-out goals",
    columns=SUCCESS,
    rows=tuple(
        Row(f"{env.removesuffix('-v3')}_{learner}", f"{env.removesuffix('-v3')}, {label}", ml1(env, learner))
        for env in ("reach-v3", "push-v3", "pick-place-v3")
        for learner, label in (("maml", "MAML"), ("rl2", "RL²"))
    ),
    tags=("meta_train/success_post",),
    note=SUCCESS_NOTE,
)

if __name__ == "__main__":
    main(STUDY, __file__)
