"""The field on the tasks it is known by: RL², RNN+HN, VariBAD, PEARL, MAML and ProMP, a setting each for all tasks.

    python experiments/field.py [--jobs 2] [--seeds 3] [--only 'half_cheetah_vel_*'] [--smoke] [--dry-run]

Equal environment steps: the held-out columns, after a run's whole budget (alike for all but PEARL, whose rows have an
eighth of it), and the column of the first million steps. Equal wall time: the column of the first ten minutes of
sampling and updates, one thread each (``--num-threads 1``), on a machine where all rows run alike.
"""

from metarl.cli.study import main
from metarl.presets import make
from metarl.runs.studies import Column, Reported, Row, Study

TASKS = {
    "half_cheetah_vel": "half-cheetah velocity",
    "half_cheetah_dir": "half-cheetah direction",
    "ant_dir": "ant direction",
    "half_circle": "sparse half circle",
    "walker2d_rand_params": "walker, random parameters",
    "grid_navi": "GridNavi",
}
LEARNERS = {
    "rl2": ("RL²", "rl2", "field"),
    "hyper": ("RNN+HN", "rl2", "hyper"),
    "varibad": ("VariBAD", "varibad", "field"),
    "pearl": ("PEARL", "pearl", "small"),
    "maml": ("MAML", "maml", "field"),
    "promp": ("ProMP", "promp", "field"),
}
OWN = {("grid_navi", "rl2"): "tuned", ("grid_navi", "varibad"): "tuned"}
"""Presets where a learner has settings of its own."""
CONTINUOUS = "grid_navi"
"""PEARL's critic takes continuous actions: it has no row here."""

CORL = "Beck et al. 2022, as transcribed by others"
LONG = "75M to 100M steps, trials of two episodes, return as the paper counts it; 95 % interval or deviation of 3 seeds"
REPORTED = {
    ("half_cheetah_dir", "varibad"): (
        Reported((None, 2104.0, None, None), CORL, f"{LONG}: 87", method="VariBAD, policy as usual"),
        Reported((None, 2300.0, None, None), CORL, f"{LONG}: 32", method="VariBAD with a hypernetwork, Bias-HyperInit"),
    ),
    ("walker2d_rand_params", "varibad"): (
        Reported((None, 1300.0, None, None), "VariBAD's author, as transcribed by others", "about, an episode of 200 "
                 "steps; a policy trained on all walkers more than 1000, VariBAD less", method="expert of each walker"),
    ),
}  # fmt: skip


def row(task: str, name: str) -> Row:
    label, learner, preset = LEARNERS[name]
    experiment = make(task, learner, OWN.get((task, name), preset))
    return Row(f"{task}_{name}", f"{TASKS[task]}, {label}", experiment, REPORTED.get((task, name), ()))


RETURN = "meta_train/return_post"
STUDY = Study(
    name="field",
    title="The field: mean return of an episode, before and after adaptation, at equal steps and at equal time",
    columns=(
        Column("held-out, first", (("mean", 0, "value"),)),
        Column("held-out, adapted", (("mean", -1, "value"),)),
        Column("training, adapted, within 1M steps", tag=RETURN, within_steps=1e6),
        Column("the same within 10 minutes", tag=RETURN, within_minutes=10.0),
    ),
    rows=tuple(row(task, name) for task in TASKS for name in LEARNERS if (task, name) != (CONTINUOUS, "pearl")),
    tags=(RETURN,),
    note="First: the first episode of a trial, or before any inner step; adapted: its last episode, or after all inner "
    "steps (PEARL: posteriors). Held-out tasks, sampled actions, final checkpoint, settings ours and alike on all "
    "MuJoCo tasks. Training columns: fresh tasks of the distribution, mean of the last five iterations within the "
    "bound; minutes are of sampling and updates, tests excluded. PEARL, VariBAD, RL² and ProMP publish curves alone on "
    "these tasks.",
)

if __name__ == "__main__":
    main(STUDY, __file__)
