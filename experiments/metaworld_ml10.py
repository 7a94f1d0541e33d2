"""Meta-World ML10: ten environments to train on, five others to test on, goals hidden.

    python experiments/metaworld_ml10.py [--jobs 2] [--seeds 3] [--only 'tuned_*'] [--dry-run]

20M environment steps, the budget of Meta-World+ (2025); `plus` has its hyperparameters as well, `tuned` has ours.
"""

from metarl.cli.study import main
from metarl.presets import make
from metarl.reports.study_columns import SUCCESS, SUCCESS_NOTE
from metarl.runs.studies import Reported, Row, Study


def published(plus: float, paper: float, paper_steps: str) -> tuple[Reported, ...]:
    first_finished = "greedy after 10 adaptation episodes, the first three episodes to finish count"
    nothing = (None, None, None, None)
    return (
        Reported((*nothing, plus), "Meta-World+ 2025, as transcribed (about)", f"{first_finished}; 10 seeds", "20M"),
        Reported(
            (*nothing, paper),
            "Meta-World 2021",
            f"{first_finished}, the maximum over training; 10 seeds; other hyperparameters and twenty times our steps",
            paper_steps,
        ),
    )


STUDY = Study(
    name="metaworld_ml10",
    title="Meta-World ML10: success on held-out environments",
    columns=SUCCESS,
    rows=(
        Row("plus_maml", "MAML, plus", make("ml10", "maml", "plus"), published(0.35, 0.316, "400M")),
        Row("plus_rl2", "RL², plus", make("ml10", "rl2", "plus"), published(0.35, 0.358, "500M")),
        Row("tuned_maml", "MAML, tuned", make("ml10", "maml", "tuned")),
        Row("tuned_rl2", "RL², tuned", make("ml10", "rl2", "tuned")),
        Row("small_promp", "ProMP, small", make("ml10", "promp", "small")),
    ),
    tags=("meta_train/success_post",),
    note=SUCCESS_NOTE,
)

if __name__ == "__main__":
    main(STUDY, __file__)
