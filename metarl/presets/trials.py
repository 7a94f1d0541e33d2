"""RL² and VariBAD in trials of two episodes, the settings that families share."""

from dataclasses import replace

from metarl.algorithms.rl2 import RL2
from metarl.algorithms.varibad import VariBAD
from metarl.envs.registry import TaskDistribution, find_preset
from metarl.losses.elbo import ELBO
from metarl.networks.belief import BeliefModel
from metarl.networks.mlp import MLP
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


PUBLISHED = VariBAD(
    belief=BeliefModel(belief_units=128, obs_units=32, action_units=16, reward_units=16, decoder_sizes=(64, 32)),
    policy=MLP((128, 128), normalize_obs=True),
    elbo=ELBO(belief_updates=1, belief_trials=10, kl_weight=0.8, elbo_prefixes=50, elbo_decodes=50, bptt_steps=50),
    value_sizes=(128, 128),
    discount=0.97,
    gae_lambda=0.9,
    clip=0.1,
)
"""What the published VariBAD runs on MuJoCo share (lmzintgraf/varibad, ``config/mujoco``). Their KL weight of 0.1 is
beside the sum of 50 of a trial's 400 steps, ours beside an estimate of all. Here an update is of whole trials (their
ant's of half a one), policy and decoders have no embeddings, and the value's error is squared, not clipped."""


def believing(
    task: TaskDistribution, *, epochs: int, minibatches: int, trials: int, iterations: int, tuned: bool = False
) -> Experiment:
    """VariBAD in trials of two episodes; ``tuned`` has a tenth of the replay, which is enough for shorter runs, and a
    learning rate and entropy bonus that end at zero."""
    learner = replace(PUBLISHED, epochs=epochs, minibatches=minibatches)
    elbo = replace(PUBLISHED.elbo, belief_updates=5, replay_episodes=2000)
    ours = replace(learner, elbo=elbo, clip=0.2, entropy_bonus=0.001, anneal_updates=None)
    return Experiment(
        task=task,
        learner=ours if tuned else learner,
        num_tasks=trials,
        num_envs=1,
        episodes=2,
        iterations=iterations,
        eval_interval=25,
        eval_tasks=40,
    )
