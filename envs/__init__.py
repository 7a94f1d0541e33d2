"""Task distributions and the batched environments that run them; importing this package fills ``TASKS``
and registers them with Gymnasium."""

from envs import (
    ant_damaged,
    ant_dir,
    ant_dir_2d,
    ant_goal,
    ant_rand_params,
    ant_vel,
    bandit,
    cartpole_mass,
    half_cheetah_damaged,
    half_cheetah_dir,
    half_cheetah_rand_params,
    half_cheetah_vel,
    hopper_rand_params,
    humanoid_dir,
    metaworld,
    navigation,
    pendulum_mass,
    swimmer_vel,
    tabular_mdp,
    walker2d_dir,
    walker2d_rand_params,
    walker2d_vel,
)
from envs.api import TASKS, EnvSpec, Step, TaskDistribution, TaskEnv, find_preset, make
from envs.gymnasium_env import GymnasiumEnv, register_tasks
from envs.vector_env import TaskVectorEnv

__all__ = [
    "TASKS",
    "EnvSpec",
    "GymnasiumEnv",
    "Step",
    "TaskDistribution",
    "TaskEnv",
    "TaskVectorEnv",
    "ant_damaged",
    "ant_dir",
    "ant_dir_2d",
    "ant_goal",
    "ant_rand_params",
    "ant_vel",
    "bandit",
    "cartpole_mass",
    "find_preset",
    "half_cheetah_damaged",
    "half_cheetah_dir",
    "half_cheetah_rand_params",
    "half_cheetah_vel",
    "hopper_rand_params",
    "humanoid_dir",
    "make",
    "metaworld",
    "navigation",
    "pendulum_mass",
    "register_tasks",
    "swimmer_vel",
    "tabular_mdp",
    "walker2d_dir",
    "walker2d_rand_params",
    "walker2d_vel",
]

register_tasks()
