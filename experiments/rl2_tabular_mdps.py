"""RL² on random tabular MDPs, table 2 of Duan et al. 2016: total reward of a trial, beside exploration algorithms.

python experiments/rl2_tabular_mdps.py [--jobs 2] [--seeds 3] [--only n10] [--dry-run]
"""

from metarl.cli.study import main
from metarl.presets import make
from metarl.reports.study_columns import GREEDY, trial
from metarl.runs.studies import Column, Reported, Row, Study

DUAN = "Duan et al. 2016, table 2, as transcribed in lucaslingle/pytorch_rl2"
PROTOCOL = (
    "trained far longer than ours (its reimplementation: up to 12,000 updates of 240,000 observations, of which the "
    "best counts)"
)


def mdps(episodes: int, *published: float) -> Row:
    """``published``: RL², BEB, UCRL2, OPSRL, PSRL, random."""
    rl2, *others = published
    reported = Reported((rl2, None, None, *others), DUAN, PROTOCOL)
    return Row(f"n{episodes}", f"{episodes} episodes", make("tabular_mdp", "rl2", f"n{episodes}"), (reported,))


STUDY = Study(
    name="rl2_tabular_mdps",
    title="RL² on tabular MDPs: mean total reward of a trial on held-out MDPs",
    columns=(
        trial("RL²"),
        trial("RL², greedy", GREEDY),
        Column("knows the MDP", (("bounds", "knows the task"),)),
        trial("BEB", "BEB"),
        trial("UCRL2", "UCRL2"),
        trial("OPSRL", "OPSRL"),
        trial("PSRL", "PSRL"),
        trial("random", "random"),
    ),
    rows=(
        mdps(10, 156.2, 150.2, 146.6, 144.1, 138.1, 100.1),
        mdps(25, 445.7, 427.8, 424.1, 425.2, 408.8, 250.2),
        mdps(50, 936.1, 917.8, 918.9, 930.7, 904.4, 499.7),
        mdps(75, 1428.8, 1422.6, 1427.6, 1449.2, 1417.1, 749.9),
        mdps(100, 1913.7, 1935.1, 1942.1, 1973.9, 1939.5, 999.4),
    ),
    tags=("meta_train/return_trial",),
    note="Ours: 1,000 held-out MDPs, one trial each, sampled actions, final checkpoint. The exploration algorithms "
    "play the same MDPs for every seed.",
)

if __name__ == "__main__":
    main(STUDY, __file__)
