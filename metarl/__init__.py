"""Meta-reinforcement learning: adaptation, meta-gradients and meta-evaluation on batched task environments.

The loop is :func:`metarl.train.train`; an algorithm is a dataclass in :mod:`metarl.algorithms`; a task distribution
lives in the sister package ``envs``; :func:`metarl.run.main` makes a script of an :class:`Experiment`.
"""

from envs.api import TASKS
from metarl.algorithms import ALGORITHMS
from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.gradient import GradientLearner
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO, Gradient
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.baselines import LinearFeatureBaseline
from metarl.distributions import Categorical, DiagGaussian
from metarl.evaluate import held_out_tasks, meta_test
from metarl.experiment import Experiment
from metarl.policies import GaussianMLP, RecurrentPolicy
from metarl.rollout import rollout
from metarl.train import train
from metarl.types import MetaLearner, Previous, TrajectoryBatch

__all__ = [
    "ALGORITHMS",
    "ESMAML",
    "MAML",
    "PPO",
    "RL2",
    "TRPO",
    "Categorical",
    "DiagGaussian",
    "Experiment",
    "GaussianMLP",
    "Gradient",
    "GradientLearner",
    "LinearFeatureBaseline",
    "MetaLearner",
    "Previous",
    "ProMP",
    "RecurrentPolicy",
    "Reptile",
    "TrajectoryBatch",
    "held_out_tasks",
    "meta_test",
    "rollout",
    "train",
]

if not TASKS:
    raise ImportError("another folder called envs hides the one of metarl: rename it, or start Python elsewhere")
