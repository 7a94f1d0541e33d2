"""RL² on random tabular MDPs: ``n<episodes>``, as in Duan et al. 2016 (table 2).

``metarl evaluate`` prints the exploration algorithms, the value of knowing the MDP, and the paper's numbers beside the
result. MAML's ``tuned`` plays 20 episodes, takes one gradient step, and plays again.
"""

from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import find_preset
from metarl.networks.mlp import CategoricalMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs.experiment import Experiment


def tabular_mdp(episodes: int, *, trials: int, iterations: int) -> Experiment:
    """Attention finds what was earned in a state before; a GRU of 128 units stays at 122 of 156 (n10) as long.

    Learning rate and entropy bonus end at zero.
    """
    return Experiment(
        task=find_preset("tabular_mdp"),
        learner=RL2(
            policy=RecurrentPolicy(memory="attention", memory_size=64),
            gae_lambda=0.3,
            learning_rate=6e-3,
            epochs=4,
            minibatches=8,
            entropy_bonus=0.02,
            anneal_updates=None,
        ),
        num_tasks=trials,
        num_envs=1,
        episodes=episodes,
        iterations=iterations,
        eval_interval=25,
        eval_tasks=500,
    )


RL2_PRESETS = {
    "n10": tabular_mdp(10, trials=500, iterations=200),
    "n25": tabular_mdp(25, trials=200, iterations=200),
    "n50": tabular_mdp(50, trials=100, iterations=200),
    "n75": tabular_mdp(75, trials=64, iterations=200),
    "n100": tabular_mdp(100, trials=48, iterations=200),
}

MAML_PRESETS = {
    "tuned": Experiment(
        task=find_preset("tabular_mdp"),
        learner=MAML(policy=CategoricalMLP((64, 64)), inner_lr=0.3),
        num_tasks=40,
        eval_tasks=200,
    )
}

PRESETS = (RL2_PRESETS, MAML_PRESETS)
