"""Task distributions and the batched environments that run them; importing this package fills ``TASKS``
and registers them with Gymnasium."""

from metarl.envs.api import EnvSpec, Step, TaskEnv
from metarl.envs.gymnasium_env import GymnasiumEnv, register_tasks
from metarl.envs.gymnasium_tasks import GymTasks
from metarl.envs.locomotion.ant_damaged import AntDamaged
from metarl.envs.locomotion.ant_dir import AntDir
from metarl.envs.locomotion.ant_dir_2d import AntDir2D
from metarl.envs.locomotion.ant_goal import AntGoal
from metarl.envs.locomotion.ant_rand_params import AntRandParams
from metarl.envs.locomotion.ant_vel import AntVel
from metarl.envs.locomotion.half_cheetah_damaged import HalfCheetahDamaged
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.locomotion.half_cheetah_rand_params import HalfCheetahRandParams
from metarl.envs.locomotion.half_cheetah_vel import HalfCheetahVel
from metarl.envs.locomotion.hopper_rand_params import HopperRandParams
from metarl.envs.locomotion.humanoid_dir import HumanoidDir
from metarl.envs.locomotion.swimmer_vel import SwimmerVel
from metarl.envs.locomotion.walker2d_dir import Walker2dDir
from metarl.envs.locomotion.walker2d_rand_params import Walker2dRandParams
from metarl.envs.locomotion.walker2d_vel import Walker2dVel
from metarl.envs.metaworld import ML1, ML10, ML25, ML45, MT1, MT10, MT25, MT50
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.registry import TASKS, TaskDistribution, find_preset, make
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.cartpole_mass import CartPoleMass
from metarl.envs.small.classic_control import CartPoleLength, PendulumGravity
from metarl.envs.small.grid_navi import GridNavi
from metarl.envs.small.half_circle import HalfCircle
from metarl.envs.small.minigrid_goal import MiniGridGoal
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.pendulum_mass import PendulumMass
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.envs.trial import TrialWrapper
from metarl.envs.vector_env import TaskVectorEnv
from metarl.envs.worlds import BatchedTasks, Outcome, Worlds

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
    "BatchedTasks",
    "CartPoleLength",
    "CartPoleMass",
    "EnvSpec",
    "GridNavi",
    "GymTasks",
    "GymnasiumEnv",
    "HalfCheetahDamaged",
    "HalfCheetahDir",
    "HalfCheetahRandParams",
    "HalfCheetahVel",
    "HalfCircle",
    "HopperRandParams",
    "HumanoidDir",
    "MiniGridGoal",
    "MujocoTask",
    "Navigation",
    "Outcome",
    "PendulumGravity",
    "PendulumMass",
    "Step",
    "SwimmerVel",
    "TabularMDP",
    "TaskDistribution",
    "TaskEnv",
    "TaskVectorEnv",
    "TrialWrapper",
    "Walker2dDir",
    "Walker2dRandParams",
    "Walker2dVel",
    "Worlds",
    "find_preset",
    "make",
    "register_tasks",
]

register_tasks()
