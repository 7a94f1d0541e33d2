"""ProMP on walkers with masses, inertias, dampings and friction of their own (Rothfuss et al. 2019, figure 2).

    python experiments/promp_walkers.py [--jobs 2] [--seeds 3] [--only tuned] [--dry-run]

The paper reports curves alone.
"""

from metarl.cli.study import main
from metarl.presets import make
from metarl.reports.study_columns import BY_STEP
from metarl.runs.studies import Row, Study

STUDY = Study(
    name="promp_walkers",
    title="ProMP on walkers with dynamics of their own: mean return on 40 held-out walkers, by inner steps",
    columns=BY_STEP,
    rows=(
        Row("tuned", "inner step 0.3, lambda 0.9 (tuned)", make("walker2d_rand_params", "promp", "tuned")),
        Row("promp", "inner step 0.05, lambda 1 (as published)", make("walker2d_rand_params", "promp", "promp")),
    ),
    note="Ours: 20 episodes of each walker before every inner step, sampled actions, step size halved after the first, "
    "final checkpoint. Published: curves alone, 320M environment steps.",
)

if __name__ == "__main__":
    main(STUDY, __file__)
