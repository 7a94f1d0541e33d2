"""GridNavi in trials of four episodes, as in VariBAD (Zintgraf et al. 2020).

VariBAD's ``tuned`` is ours: the published networks and likelihoods with larger meta-batches, steps and passes. Its
belief takes many and large gradient steps from a long replay, for a thousand of the published size taught it next to
nothing. It plays the first episode as well as can be, greedily, after 4.8M steps (docs/results.md). ``varibad`` has the
settings of the published code (lmzintgraf/varibad, ``config/gridworld/args_grid_varibad.py``: 20M environment steps,
960 an update; here without embeddings in the policy and decoders, and the value's squared error in deviations of the
return, not clipped, in place of rewards over a running deviation and a clipped Huber loss). RL²'s ``tuned`` is ours and
has the same experience.
"""

from metarl.algorithms.rl2 import RL2
from metarl.algorithms.varibad import VariBAD
from metarl.envs.registry import find_preset
from metarl.losses.elbo import ELBO
from metarl.networks.belief import BeliefModel
from metarl.networks.mlp import MLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs.experiment import Experiment

PUBLISHED = VariBAD(
    belief=BeliefModel(reward_model="bernoulli", reward_of="next_obs", levels=(5, 5)),
    policy=MLP((32,), normalize_obs=True),
    elbo=ELBO(replay_episodes=400_000),
    value_sizes=(32,),
    discount=0.95,
)
TUNED = VariBAD(
    belief=BeliefModel(obs_units=32, reward_model="bernoulli", reward_of="next_obs", levels=(5, 5)),
    policy=MLP((64,), normalize_obs=True),
    elbo=ELBO(
        belief_learning_rate=5e-3, belief_updates=15, belief_trials=50, elbo_prefixes=20, replay_episodes=100_000
    ),
    value_sizes=(64,),
    learning_rate=2e-3,
    epochs=6,
    clip=0.2,
    entropy_bonus=0.02,
    anneal_updates=None,
)
VARIBAD_PRESETS = {
    "tuned": Experiment(
        task=find_preset("grid_navi"),
        learner=TUNED,
        num_tasks=200,
        num_envs=1,
        episodes=4,
        iterations=400,
        eval_interval=50,
        eval_tasks=210,
    ),
    "varibad": Experiment(
        task=find_preset("grid_navi"),
        learner=PUBLISHED,
        num_tasks=16,
        num_envs=1,
        episodes=4,
        iterations=20_833,
        eval_interval=500,
        eval_tasks=210,
    ),
}
RL2_PRESETS = {
    "tuned": Experiment(
        task=find_preset("grid_navi"),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=64, encoder_sizes=(64,)),
            gae_lambda=0.95,
            value_lambda=0.95,
            learning_rate=2e-3,
            epochs=6,
            minibatches=4,
            entropy_bonus=0.02,
            anneal_updates=None,
        ),
        num_tasks=200,
        num_envs=1,
        episodes=4,
        iterations=400,
        eval_interval=50,
        eval_tasks=210,
    ),
}

PRESETS = (VARIBAD_PRESETS, RL2_PRESETS)
