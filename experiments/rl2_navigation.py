"""RL² on a point that must find a goal it cannot see, two episodes a trial.

The presets name the definition of the task. ``metarl evaluate`` trains a memoryless PPO on the same tasks and steps
beside it.
"""

from envs import Navigation
from metarl import RL2, Experiment, RecurrentPolicy
from metarl.run import Command, main


def rl2(preset: str, *, trials: int, episodes: int, iterations: int) -> Experiment:
    """Learning rate and entropy bonus end at zero."""
    return Experiment(
        task=Navigation.presets[preset],
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=64, encoder_sizes=(64,)),
            gae_lambda=0.95,
            value_lambda=0.95,
            learning_rate=2e-3,
            epochs=8,
            minibatches=2,
            entropy_bonus=0.001,
            anneal_updates=iterations,
        ),
        num_tasks=trials,
        num_envs=1,
        episodes=episodes,
        iterations=iterations,
        eval_interval=25,
        eval_tasks=40,
    )


PRESETS = {
    "corner": rl2("corner", trials=120, episodes=2, iterations=200),
    "maml2017": rl2("maml2017", trials=120, episodes=2, iterations=200),
}

if __name__ == "__main__":
    main(PRESETS, Command[Navigation, RL2])
