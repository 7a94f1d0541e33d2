"""Task distributions and the batched environments that run them; importing this package fills ``TASKS``
and registers them with Gymnasium."""

from envs.ant_damaged import AntDamaged
from envs.ant_dir import AntDir
from envs.ant_dir_2d import AntDir2D
from envs.ant_goal import AntGoal
from envs.ant_rand_params import AntRandParams
from envs.ant_vel import AntVel
from envs.api import TASKS, EnvSpec, Step, TaskDistribution, TaskEnv, find_preset, make
from envs.bandit import Bandit
from envs.cartpole_mass import CartPoleMass
from envs.gymnasium_env import GymnasiumEnv, register_tasks
from envs.half_cheetah_damaged import HalfCheetahDamaged
from envs.half_cheetah_dir import HalfCheetahDir
from envs.half_cheetah_rand_params import HalfCheetahRandParams
from envs.half_cheetah_vel import HalfCheetahVel
from envs.hopper_rand_params import HopperRandParams
from envs.humanoid_dir import HumanoidDir
from envs.metaworld import ML1, ML10, ML25, ML45, MT1, MT10, MT25, MT50
from envs.mujoco_env import MujocoTask
from envs.navigation import Navigation
from envs.pendulum_mass import PendulumMass
from envs.swimmer_vel import SwimmerVel
from envs.tabular_mdp import TabularMDP
from envs.vector_env import TaskVectorEnv
from envs.walker2d_dir import Walker2dDir
from envs.walker2d_rand_params import Walker2dRandParams
from envs.walker2d_vel import Walker2dVel

__all__ = [
    "ML1",
    "ML10",
    "ML25",
    "ML45",
    "MT1",
    "MT10",
    "MT25",
    "MT50",
    "TASKS",
    "AntDamaged",
    "AntDir",
    "AntDir2D",
    "AntGoal",
    "AntRandParams",
    "AntVel",
    "Bandit",
    "CartPoleMass",
    "EnvSpec",
    "GymnasiumEnv",
    "HalfCheetahDamaged",
    "HalfCheetahDir",
    "HalfCheetahRandParams",
    "HalfCheetahVel",
    "HopperRandParams",
    "HumanoidDir",
    "MujocoTask",
    "Navigation",
    "PendulumMass",
    "Step",
    "SwimmerVel",
    "TabularMDP",
    "TaskDistribution",
    "TaskEnv",
    "TaskVectorEnv",
    "Walker2dDir",
    "Walker2dRandParams",
    "Walker2dVel",
    "find_preset",
    "make",
    "register_tasks",
]

register_tasks()
