"""RL² on Bernoulli bandits: ``n<pulls>_k<arms>``, as in Duan et al. 2016 (table 1).

An episode is one pull, so a trial of n pulls has n episodes. ``metarl evaluate`` prints the bandit algorithms, the
Bayes-optimal value where it can be computed, and the paper's numbers beside the result.

MAML's ``tuned`` pulls 20 times, takes one gradient step, and pulls again.
"""

from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import find_preset
from metarl.networks.mlp import CategoricalMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs.experiment import Experiment


def bandit(pulls: int, arms: int, *, trials: int, iterations: int) -> Experiment:
    """A GRU learns short trials, where a wasted pull shows, as well as attention and faster; long ones less well.

    Trials of 100 pulls want credit over more of them (10 arms: lambda 0.3 ended 2.0 below the Gittins index, 0.8 and
    twice the batch 0.7). Learning rate and entropy bonus end at zero.
    """
    short = pulls <= 10
    return Experiment(
        task=find_preset("bandit", f"k{arms}"),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru" if short else "attention", memory_size=64),
            gae_lambda=0.8 if pulls == 100 else 0.3,
            learning_rate=1e-2 if short else 6e-3,
            epochs=4,
            minibatches=8,
            entropy_bonus=0.02,
            anneal_updates=None,
        ),
        num_tasks=trials,
        num_envs=1,
        episodes=pulls,
        iterations=iterations,
        eval_interval=25,
        eval_tasks=500,
    )


RL2_PRESETS = {
    "n10_k5": bandit(10, 5, trials=1000, iterations=300),
    "n10_k10": bandit(10, 10, trials=1000, iterations=300),
    "n10_k50": bandit(10, 50, trials=1000, iterations=600),
    "n100_k5": bandit(100, 5, trials=1000, iterations=200),
    "n100_k10": bandit(100, 10, trials=1000, iterations=200),
    "n100_k50": bandit(100, 50, trials=1000, iterations=200),
    "n500_k5": bandit(500, 5, trials=100, iterations=150),
    "n500_k10": bandit(500, 10, trials=100, iterations=150),
    "n500_k50": bandit(500, 50, trials=100, iterations=200),
}

MAML_PRESETS = {
    "tuned": Experiment(
        task=find_preset("bandit", "k5"),
        learner=MAML(policy=CategoricalMLP((64, 64)), inner_lr=1.0),
        num_tasks=40,
        eval_tasks=200,
    )
}

PRESETS = (RL2_PRESETS, MAML_PRESETS)
