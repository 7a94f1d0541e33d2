"""RL² on random tabular MDPs: presets n<episodes>, as in Duan et al. 2016 (table 2).

``metarl evaluate`` prints the exploration algorithms, the value of knowing the MDP, and the paper's numbers beside the
result.
"""

from envs.tabular_mdp import TabularMDP
from metarl.algorithms.rl2 import RL2
from metarl.experiment import Experiment
from metarl.policies import RecurrentPolicy
from metarl.run import Command, main


def tabular_mdp(episodes: int, *, trials: int, iterations: int) -> Experiment:
    """Learning rate and entropy bonus end at zero."""
    return Experiment(
        task=TabularMDP(),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=128),
            gae_lambda=0.3,
            learning_rate=3e-3,
            epochs=4,
            minibatches=8,
            anneal_updates=iterations,
        ),
        num_tasks=trials,
        num_envs=1,
        episodes=episodes,
        iterations=iterations,
        eval_interval=25,
        eval_tasks=500,
    )


PRESETS = {
    "n10": tabular_mdp(10, trials=500, iterations=500),
    "n25": tabular_mdp(25, trials=250, iterations=500),
    "n50": tabular_mdp(50, trials=125, iterations=500),
    "n75": tabular_mdp(75, trials=100, iterations=500),
    "n100": tabular_mdp(100, trials=100, iterations=500),
}

if __name__ == "__main__":
    main(PRESETS, Command[TabularMDP, RL2])
