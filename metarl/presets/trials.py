"""RL² in trials of two episodes, the settings that half-cheetahs and navigation share."""

from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import find_preset
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs.experiment import Experiment


def two_episodes(task: str, preset: str, *, trials: int) -> Experiment:
    """RL² in trials of two episodes."""
    return Experiment(
        task=find_preset(task, preset),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=64, encoder_sizes=(64,)),
            gae_lambda=0.95,
            value_lambda=0.95,
            learning_rate=2e-3,
            epochs=8,
            minibatches=2,
            entropy_bonus=0.001,
            anneal_updates=None,
        ),
        num_tasks=trials,
        num_envs=1,
        episodes=2,
        iterations=200,
        eval_interval=25,
        eval_tasks=40,
    )
