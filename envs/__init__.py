"""Task distributions and the batched environments that run them; importing this package fills ``TASKS``."""

from envs import bandit, half_cheetah_dir, half_cheetah_vel, metaworld, navigation, tabular_mdp
from envs.api import TASKS, EnvSpec, Step, TaskDistribution, TaskEnv, find_preset, make

__all__ = [
    "TASKS",
    "EnvSpec",
    "Step",
    "TaskDistribution",
    "TaskEnv",
    "bandit",
    "find_preset",
    "half_cheetah_dir",
    "half_cheetah_vel",
    "make",
    "metaworld",
    "navigation",
    "tabular_mdp",
]
