"""MAML as published (Finn et al. 2017): return after 0 to 3 inner steps on the paper's own held-out tasks.

    python experiments/maml_icml2017.py [--jobs 2] [--seeds 3] [--only half_cheetah_dir] [--dry-run]

Tasks, tests and budgets are the paper's. Navigation has its hyperparameters, too, and its least number of steps a task
in a batch (2,000, however early goals are reached); the other rows have ours (`tuned`), half-cheetah direction with
directions stratified over the meta-batch.
"""

from dataclasses import replace

from metarl import Experiment
from metarl.cli.study import main
from metarl.presets import make
from metarl.reports.study_columns import BY_STEP
from metarl.runs.studies import Reported, Row, Study

EXPERIENCE = "at least 4,000 steps of experience of each, step size halved after the first"
ANT_DIR_EXPERIENCE = "at least 8,000 steps of experience of each, step size a hundredth after the first"


def finn(*returns: float, oracle: float, steps: str, experience: str = EXPERIENCE) -> tuple[Reported, ...]:
    """``oracle``: of a policy that sees the task."""
    source, protocol = "Finn et al. 2017, icml/*.pkl of cbfinn/maml_rl", f"one run, 40 tasks, {experience}; MuJoCo 1.31"
    return (
        Reported(returns, source, protocol, steps),
        Reported((oracle,) * len(returns), source, protocol, method="oracle"),
    )


def balanced(experiment: Experiment) -> Experiment:
    """With as many tasks forward as backward in each meta-batch."""
    return replace(experiment, task=replace(experiment.task, balanced=True))


STUDY = Study(
    name="maml_icml2017",
    title="MAML 2017: mean return on 40 held-out tasks, by inner steps",
    columns=BY_STEP,
    rows=(
        Row(
            "navigation",
            "2D navigation",
            replace(make("navigation", "maml", "maml2017"), min_steps=2000),
            finn(-40.4, -11.7, -3.3, -3.2, oracle=-2.3, steps="8M"),
        ),
        Row(
            "half_cheetah_dir",
            "half-cheetah direction",
            balanced(make("half_cheetah_dir", "maml", "tuned")),
            finn(-50.7, 293.2, 313.5, 315.7, oracle=442.7, steps="32M"),
        ),
        Row(
            "half_cheetah_vel",
            "half-cheetah velocity",
            replace(make("half_cheetah_vel", "maml", "tuned"), iterations=475),
            finn(-129.5, -78.6, -66.6, -60.8, oracle=-54.5, steps="76M"),
        ),
        Row(
            "half_cheetah_vel_pearl",
            "half-cheetah velocity, PEARL",
            replace(make("half_cheetah_vel", "pearl", "small"), task=make("half_cheetah_vel", "maml", "tuned").task),
        ),
        Row(
            "ant_dir",
            "ant direction",
            replace(make("ant_dir", "maml", "tuned"), iterations=2300),
            finn(8.7, 499.2, 500.7, 499.1, oracle=524.8, steps="368M", experience=ANT_DIR_EXPERIENCE),
        ),
        Row(
            "ant_vel",
            "ant velocity",
            replace(make("ant_vel", "maml", "tuned"), iterations=750),
            finn(30.6, 96.7, 100.1, 101.4, oracle=107.9, steps="120M"),
        ),
    ),
    note="Ours: the paper's 40 tasks, its steps of experience and step sizes (metarl evaluate's defaults), sampled "
    "actions, final checkpoint.",
)

if __name__ == "__main__":
    main(STUDY, __file__)
