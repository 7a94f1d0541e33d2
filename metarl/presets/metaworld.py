"""Meta-World's ML1 (``--env push-v3`` chooses one of its 50 environments), ML10 and ML45; goals hidden.

``plus`` has hyperparameters and environment steps of Meta-World+ (2025: 2M, 20M and 90M), ``metaworld2021`` those of
the paper of 2021: MAML's but for its tanh output, its entropy bonus (5e-5) and its upper bound on the standard
deviation, RL²'s but for that bound. ``tuned`` keeps plus's budget with standardized observations and networks that CPUs
can update; MAML's with smaller meta-batches on ML1, RL²'s with shorter trials.

ProMP's ``plus`` has the budget, meta-batch and network of Meta-World+'s MAML (no paper reports ProMP on ML10), its
``small`` MAML's ``tuned`` with ProMP's published outer loss in the place of TRPO, not tuned itself.
"""

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO
from metarl.algorithms.promp import ProMP
from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import find_preset
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline
from metarl.runs.experiment import Experiment

ML1, ML10, ML45 = (find_preset(name) for name in ("ml1", "ml10", "ml45"))
ML1_SCALED, ML10_SCALED, ML45_SCALED = (find_preset(name, standardize=True) for name in ("ml1", "ml10", "ml45"))

PLUS_MAML = MAML(policy=GaussianMLP((512, 512), "tanh"), outer=TRPO(max_kl=0.01), inner_lr=0.1)
PAPER_MAML = MAML(policy=GaussianMLP((128, 128), "tanh", min_std=0.5), outer=TRPO(max_kl=0.01), inner_lr=1e-4)


def tuned_maml(width: int, curvature_samples: int) -> MAML:
    policy = GaussianMLP((width, width), "tanh")
    return MAML(
        policy=policy, outer=TRPO(max_kl=0.02, curvature_samples=curvature_samples), inner_lr=0.03, gae_lambda=0.95
    )


ML1_MAML = {
    "tuned": Experiment(
        task=ML1_SCALED,
        learner=tuned_maml(64, 10_000),
        num_tasks=10,
        num_envs=4,
        episodes=4,
        iterations=50,
    ),
    "plus": Experiment(
        task=ML1, learner=PLUS_MAML, num_tasks=10, num_envs=10, episodes=10, iterations=20, eval_interval=5
    ),
    "metaworld2021": Experiment(
        task=ML1, learner=PAPER_MAML, num_tasks=20, num_envs=10, episodes=10, iterations=2000, eval_interval=50
    ),
}
ML10_MAML = {
    "tuned": Experiment(
        task=ML10_SCALED,
        learner=tuned_maml(128, 30_000),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=100,
    ),
    "plus": Experiment(task=ML10, learner=PLUS_MAML, num_tasks=20, num_envs=10, episodes=10, iterations=100),
    "metaworld2021": Experiment(
        task=ML10, learner=PAPER_MAML, num_tasks=20, num_envs=10, episodes=10, iterations=2000, eval_interval=50
    ),
}
ML45_MAML = {
    "tuned": Experiment(
        task=ML45_SCALED,
        learner=tuned_maml(128, 45_000),
        num_tasks=45,
        num_envs=10,
        episodes=10,
        iterations=200,
    ),
    "plus": Experiment(task=ML45, learner=PLUS_MAML, num_tasks=45, num_envs=10, episodes=10, iterations=200),
    "metaworld2021": Experiment(
        task=ML45, learner=PAPER_MAML, num_tasks=45, num_envs=20, episodes=20, iterations=2000, eval_interval=50
    ),
}
ML10_PROMP = {
    "small": Experiment(
        task=ML10_SCALED,
        learner=ProMP(
            policy=GaussianMLP((128, 128), "tanh"),
            outer=PPO(learning_rate=1e-3, epochs=5, clip=0.3),
            inner_lr=0.03,
            gae_lambda=0.95,
        ),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=100,
    ),
    "plus": Experiment(
        task=ML10,
        learner=ProMP(policy=PLUS_MAML.policy, outer=PPO(), inner_lr=0.1),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=100,
    ),
}

PLUS_RL2 = RL2(
    policy=RecurrentPolicy(memory="gru", memory_size=256, encoder_sizes=(256, 256)),
    reward_scale=0.1,
    gae_lambda=0.95,
    entropy_bonus=5e-3,
    bptt_steps=250,
)
PAPER_RL2 = RL2(
    policy=RecurrentPolicy(memory="gru", memory_size=256),
    baseline=LinearFeatureBaseline(),
    reward_scale=0.1,
    gae_lambda=0.95,
    entropy_bonus=5e-6,
    bptt_steps=250,
)


def tuned_rl2(size: int, learning_rate: float, minibatches: int) -> RL2:
    """Learning rate and entropy bonus end at zero."""
    return RL2(
        policy=RecurrentPolicy(memory="gru", memory_size=size, encoder_sizes=(size,)),
        reward_scale=0.1,
        standardize_reward=True,
        gae_lambda=0.95,
        value_lambda=0.95,
        learning_rate=learning_rate,
        epochs=6,
        minibatches=minibatches,
        entropy_bonus=0.002,
        anneal_updates=None,
    )


ML1_RL2 = {
    "tuned": Experiment(
        task=ML1_SCALED,
        learner=tuned_rl2(64, 2e-3, 4),
        num_tasks=40,
        num_envs=1,
        episodes=2,
        iterations=50,
        eval_tasks=50,
    ),
    "plus": Experiment(task=ML1, learner=PLUS_RL2, num_tasks=10, num_envs=1, episodes=10, iterations=40),
    "metaworld2021": Experiment(
        task=ML1, learner=PAPER_RL2, num_tasks=25, num_envs=1, episodes=10, iterations=4000, eval_interval=50
    ),
}
ML10_RL2 = {
    "tuned": Experiment(
        task=ML10_SCALED,
        learner=tuned_rl2(128, 1e-3, 8),
        num_tasks=160,
        num_envs=1,
        episodes=2,
        iterations=125,
        eval_interval=25,
        eval_tasks=50,
    ),
    "plus": Experiment(
        task=ML10, learner=PLUS_RL2, num_tasks=20, num_envs=1, episodes=10, iterations=200, eval_interval=20
    ),
    "metaworld2021": Experiment(
        task=ML10, learner=PAPER_RL2, num_tasks=10, num_envs=1, episodes=10, iterations=10_000, eval_interval=100
    ),
}
ML45_RL2 = {
    "tuned": Experiment(
        task=ML45_SCALED,
        learner=tuned_rl2(128, 1e-3, 4),
        num_tasks=90,
        num_envs=1,
        episodes=2,
        iterations=1000,
        eval_interval=25,
        eval_tasks=50,
    ),
    "plus": Experiment(
        task=ML45, learner=PLUS_RL2, num_tasks=45, num_envs=1, episodes=10, iterations=400, eval_interval=20
    ),
    "metaworld2021": Experiment(
        task=ML45, learner=PAPER_RL2, num_tasks=25, num_envs=1, episodes=10, iterations=14_400, eval_interval=100
    ),
}

PRESETS = (ML1_MAML, ML10_MAML, ML45_MAML, ML10_PROMP, ML1_RL2, ML10_RL2, ML45_RL2)
