"""Meta-learners, one file each."""

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.types import MetaLearner

ALGORITHMS: dict[str, type[MetaLearner]] = {cls.__name__: cls for cls in (MAML, ProMP, Reptile, ESMAML, RL2)}
