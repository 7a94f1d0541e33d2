"""RL² on Bernoulli bandits, table 1 of Duan et al. 2016: total reward of a trial, beside bandit algorithms.

python experiments/rl2_bandits.py [--jobs 2] [--seeds 3] [--only 'n10_*'] [--dry-run]
"""

from metarl.cli.study import main
from metarl.presets import make
from metarl.reports.study_columns import GREEDY, trial
from metarl.runs.studies import Column, Reported, Row, Study

DUAN = "Duan et al. 2016, table 1, as transcribed in lucaslingle/pytorch_rl2"
PROTOCOL = (
    "trained far longer than ours (its reimplementation: up to 12,000 updates of 240,000 observations, of which the "
    "best counts)"
)


def bandit(pulls: int, arms: int, *published: float) -> Row:
    """``published``: RL², Gittins index, UCB1, Thompson sampling, random."""
    rl2, *others = published
    reported = Reported((rl2, None, None, *others), DUAN, PROTOCOL)
    name = f"n{pulls}_k{arms}"
    return Row(name, f"{pulls} pulls, {arms} arms", make("bandit", "rl2", name), (reported,))


STUDY = Study(
    name="rl2_bandits",
    title="RL² on bandits: mean total reward of a trial on held-out bandits",
    columns=(
        trial("RL²", digits=2),
        trial("RL², greedy", GREEDY, digits=2),
        Column("Bayes-optimal", (("bounds", "Bayes-optimal"),), digits=2),
        trial("Gittins index", "Gittins index", digits=2),
        trial("UCB1", "UCB1", digits=2),
        trial("Thompson sampling", "Thompson sampling", digits=2),
        trial("random", "random", digits=2),
    ),
    rows=(
        bandit(10, 5, 6.7, 6.6, 6.7, 5.7, 5.0),
        bandit(10, 10, 6.7, 6.6, 6.7, 5.5, 5.0),
        bandit(10, 50, 6.8, 6.5, 6.6, 5.2, 5.1),
        bandit(100, 5, 78.7, 78.3, 78.0, 74.7, 49.9),
        bandit(100, 10, 83.5, 82.8, 82.4, 76.7, 49.9),
        bandit(100, 50, 84.9, 85.2, 84.3, 64.5, 49.8),
        bandit(500, 5, 401.6, 405.8, 405.8, 402.0, 249.8),
        bandit(500, 10, 432.5, 437.8, 437.1, 429.5, 249.0),
        bandit(500, 50, 438.9, 463.7, 457.6, 427.2, 249.6),
    ),
    tags=("meta_train/return_trial",),
    note="Ours: 1,000 held-out bandits, one trial each, sampled actions, final checkpoint. Bayes-optimal: by dynamic "
    "programming, where it can be computed. The bandit algorithms play the same bandits for every seed.",
)

if __name__ == "__main__":
    main(STUDY, __file__)
