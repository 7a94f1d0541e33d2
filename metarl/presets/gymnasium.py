"""Environments of Gymnasium: a pole of unknown length, a pendulum under unknown gravity, a hidden goal in MiniGrid.

``default`` is ours: small budgets, for worlds that are stepped in Python.
"""

from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import find_preset
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs.experiment import Experiment

GRU = RecurrentPolicy(memory="gru", memory_size=64)

PRESETS = (
    {
        "default": Experiment(
            task=find_preset("cartpole_length"),
            learner=RL2(policy=GRU, learning_rate=3e-3, epochs=4, minibatches=2),
            num_tasks=20,
            num_envs=1,
            episodes=2,
            iterations=40,
        )
    },
    {
        "default": Experiment(
            task=find_preset("pendulum_gravity"),
            learner=MAML(policy=GaussianMLP((64, 64)), inner_lr=0.1),
            num_tasks=10,
            num_envs=5,
            episodes=5,
            iterations=30,
        )
    },
    {
        "default": Experiment(
            task=find_preset("minigrid_goal"),
            learner=RL2(policy=GRU, learning_rate=3e-3, epochs=4, minibatches=2, entropy_bonus=0.02),
            num_tasks=60,
            num_envs=1,
            episodes=4,
            iterations=80,
            eval_interval=20,
        )
    },
)
