"""Meta-learners, one file each."""

from metarl.algorithms.maml import MAML
from metarl.types import MetaLearner

ALGORITHMS: dict[str, type[MetaLearner]] = {"MAML": MAML}
