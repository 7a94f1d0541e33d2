"""Meta-World ML45: 45 environments to train on, five others to test on, goals hidden.

    python experiments/metaworld_ml45.py [--jobs 2] [--seeds 3] [--only 'tuned_*'] [--dry-run]

90M environment steps, the budget of Meta-World+ (2025); `plus` has its hyperparameters as well, `tuned` has ours.
"""

from metarl.cli.study import main
from metarl.presets import make
from metarl.reports.study_columns import SUCCESS, SUCCESS_NOTE
from metarl.runs.studies import Reported, Row, Study


def published(plus: float, paper: float, paper_steps: str) -> tuple[Reported, ...]:
    first_finished = "greedy after 10 adaptation episodes, the first three episodes to finish count"
    nothing = (None, None, None, None)
    return (
        Reported((*nothing, plus), "Meta-World+ 2025, as transcribed (about)", f"{first_finished}; 10 seeds", "90M"),
        Reported(
            (*nothing, paper),
            "Meta-World 2021",
            f"{first_finished}, the maximum over training; 10 seeds; other hyperparameters and budget",
            paper_steps,
        ),
    )


STUDY = Study(
    name="metaworld_ml45",
    title="Meta-World ML45: success on held-out environments",
    columns=SUCCESS,
    rows=(
        Row("plus_maml", "MAML, plus", make("ml45", "maml", "plus"), published(0.25, 0.399, "1800M")),
        Row("plus_rl2", "RL², plus", make("ml45", "rl2", "plus"), published(0.25, 0.333, "")),
        Row("tuned_maml", "MAML, tuned", make("ml45", "maml", "tuned")),
        Row("tuned_rl2", "RL², tuned", make("ml45", "rl2", "tuned")),
    ),
    tags=("meta_train/success_post",),
    note=SUCCESS_NOTE,
)

if __name__ == "__main__":
    main(STUDY, __file__)
