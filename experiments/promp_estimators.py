"""Estimators of the meta-gradient side by side, on two tasks of ProMP's paper (Rothfuss et al. 2019).

    python experiments/promp_estimators.py [--jobs 2] [--seeds 5] [--only 'corner_*'] [--dry-run]

Task, network, inner step and samples are the same in all rows of a task; ProMP takes PPO's outer step, the others
TRPO's. The paper reports curves alone: that MAML fails on the four corners, which LVC solves, and that ProMP is ahead
of MAML, E-MAML and LVC on half-cheetahs.
"""

from dataclasses import replace

from metarl import Experiment
from metarl.cli.study import main
from metarl.presets import make
from metarl.runs.studies import Column, Row, Study

LEARNERS = {"promp": "ProMP", "maml": "MAML", "emaml": "E-MAML", "dice": "DiCE", "lvc": "LVC"}


def corner(name: str) -> Experiment:
    """20 tasks, 10 episodes a step, three inner steps: 80,000 environment steps an iteration."""
    learner, preset = ("promp", "corner") if name == "promp" else ("maml", "corner" if name == "maml" else name)
    return replace(make("navigation", learner, preset), num_tasks=20, num_envs=10, episodes=10, iterations=60)


def cheetah(name: str) -> Experiment:
    learner, preset = ("promp" if name == "promp" else "maml", "estimators" if name in ("promp", "maml") else name)
    return make("half_cheetah_dir", learner, preset)


STUDY = Study(
    name="promp_estimators",
    title="Estimators of the meta-gradient: the last five meta-batches of training, and held-out tasks",
    columns=(
        Column("success after adaptation", tag="meta_train/success_post", percent=True, digits=0),
        Column("return before", tag="meta_train/return_pre"),
        Column("return after", tag="meta_train/return_post"),
        Column("held-out return before", (("mean", 0, "value"),)),
        Column("held-out return, 3 steps", (("mean", 3, "value"),)),
    ),
    rows=(
        *(Row(f"corner_{name}", f"four corners, {label}", corner(name)) for name, label in LEARNERS.items()),
        *(
            Row(f"half_cheetah_{name}", f"half-cheetah direction, {label}", cheetah(name))
            for name, label in LEARNERS.items()
        ),
    ),
    tags=("meta_train/return_post", "meta_train/success_post"),
    note="Training columns: mean of the last five iterations' meta-batches, after one inner step (half-cheetah) or "
    "three (corners). A corner's return can be earned by going to and fro across a border without ever reaching it: "
    "success is what counts. Held-out: 40 tasks, step size halved after the first. Settings are ours; published: "
    "curves alone.",
    seeds=5,
)

if __name__ == "__main__":
    main(STUDY, __file__)
