"""Meta-World's ML1 (``--env push-v3`` chooses one of its 50 environments), ML10 and ML45; goals hidden.

``plus`` is what the code of Meta-World+ (2025) computes, over its budgets of 2M, 20M and 90M environment steps: read in
rainx0r/metaworld-algorithms at commit c3f729e, ``examples/meta_learning``.

- MAML: advantages over their variance; an inner loss that is the mean over the tasks of a meta-batch, too, so that a
  step is 0.1 / their number (in tests as well, where as many tasks adapt side by side: the number here belongs to
  ``num_tasks``); curvature on all samples.
- RL²: an encoder of three layers (its two and a head that is activated, too); mean and log standard deviation through
  tanh; raw advantages, the linear baseline fitted to each trial by all that the policy is fed; 24 chunks of 250 steps
  that overlap by 50, each a gradient step in each of 10 epochs (the last 150 steps of a trial are in none); rewards fed
  as a tenth; ends of episodes not seen.
- Published numbers are of greedy actions, counted as Meta-World counts, after 10 adaptation episodes on 200 test tasks
  (ML1: 50, ML45: 225): ``metarl evaluate RUN --adaptation-episodes 10 --episodes 3 --tasks 200``, the last column of
  the greedy row. RL²'s three episodes begin with copies of one memory there.

Left out: RL²'s first weights (Glorot-uniform everywhere; here the encoder is orthogonal, the head near zero), some
biases of its cell (torch's GRU has more), and conjugate gradients in float32 with a tolerance of 1e-5.

``metaworld2021`` has hyperparameters and environment steps of the paper of 2021 (MAML's advantages over their variance,
as garage has them) but for MAML's tanh output, its entropy bonus (5e-5), its value network and its upper bound on the
standard deviation, and RL²'s bound. ``tuned`` keeps plus's budget with standardized observations and networks that CPUs
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

PLUS_POLICY = GaussianMLP((512, 512), "tanh")
PAPER_MAML = MAML(
    policy=GaussianMLP((128, 128), "tanh", min_std=0.5),
    outer=TRPO(max_kl=0.01),
    inner_lr=1e-4,
    advantage_scale="variance",
)


def plus_maml(num_tasks: int) -> MAML:
    """The inner loss is the mean over so many tasks."""
    everything = num_tasks * 10 * 500  # the steps of a meta-batch
    return MAML(
        policy=PLUS_POLICY,
        outer=TRPO(max_kl=0.01, curvature_samples=everything),
        inner_lr=0.1 / num_tasks,
        advantage_scale="variance",
    )


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
        task=ML1, learner=plus_maml(10), num_tasks=10, num_envs=10, episodes=10, iterations=20, eval_interval=5
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
    "plus": Experiment(task=ML10, learner=plus_maml(20), num_tasks=20, num_envs=10, episodes=10, iterations=100),
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
    "plus": Experiment(task=ML45, learner=plus_maml(45), num_tasks=45, num_envs=10, episodes=10, iterations=200),
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
        learner=ProMP(policy=PLUS_POLICY, outer=PPO(), inner_lr=0.1),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=100,
    ),
}

PLUS_RL2 = RL2(
    policy=RecurrentPolicy(memory="gru", memory_size=256, encoder_sizes=(256, 256, 256), head="tanh"),
    baseline=LinearFeatureBaseline(),
    baseline_per="trial",
    reward_scale=0.1,
    hide_ends=True,
    gae_lambda=0.95,
    advantage_scale="raw",
    entropy_bonus=5e-3,
    chunk_steps=250,
    chunk_overlap=50,
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
