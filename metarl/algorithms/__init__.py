"""Meta-learners, one file each."""

from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.types import MetaLearner

ALGORITHMS: dict[str, type[MetaLearner]] = {"MAML": MAML, "RL2": RL2}
