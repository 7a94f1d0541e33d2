"""RL² on half-cheetahs whose goal no observation shows: direction and velocity, trials of two episodes.

python experiments/rl2_half_cheetah.py [--jobs 2] [--seeds 3] [--only half_cheetah_vel] [--dry-run]
"""

from metarl.cli.study import main
from metarl.presets import make
from metarl.runs.studies import Column, Row, Study

STUDY = Study(
    name="rl2_half_cheetah",
    title="RL² on half-cheetahs: mean return of an episode on held-out tasks",
    columns=(
        Column("episode 1", (("mean", 0, "value"),)),
        Column("episode 2", (("mean", 1, "value"),)),
        Column("episode 1, greedy", (("comparisons", "*, greedy", "mean", 0, "value"),)),
        Column("episode 2, greedy", (("comparisons", "*, greedy", "mean", 1, "value"),)),
        Column("untrained, episode 2", (("comparisons", "untrained", "mean", 1, "value"),)),
    ),
    rows=(
        Row("half_cheetah_vel", "half-cheetah velocity (promp)", make("half_cheetah_vel", "rl2", "promp")),
        Row("half_cheetah_dir", "half-cheetah direction (promp)", make("half_cheetah_dir", "rl2", "promp")),
        Row(
            "half_cheetah_vel_maml2017", "half-cheetah velocity (maml2017)", make("half_cheetah_vel", "rl2", "maml2017")
        ),
        Row(
            "half_cheetah_dir_maml2017",
            "half-cheetah direction (maml2017)",
            make("half_cheetah_dir", "rl2", "maml2017"),
        ),
    ),
    tags=("meta_train/return_trial",),
    note="Ours: 1000 held-out tasks, one trial of two episodes each, final checkpoint. No publication reports these "
    "tasks by RL² as a number; a policy without memory cannot earn more than -150 an episode on velocity (promp).",
)

if __name__ == "__main__":
    main(STUDY, __file__)
