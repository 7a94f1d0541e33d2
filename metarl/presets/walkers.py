"""ProMP on walkers with masses, inertias, dampings and friction of their own (Rothfuss et al. 2019, figure 2).

``promp`` has the published task and hyperparameters (320M environment steps; experiments/all_envs_eval/ppo_run_all.py
of jonasrothfuss/ProMP): half of the other tasks' inner step, three epochs, and a penalty that holds the inner KL near
.01. ``tuned`` is the same task with an inner step six times as long and lambda 0.9, so that it says more than noise:
with promp's, a policy of 1.3M steps earns as much before the step as after it.
"""

from dataclasses import replace

from metarl.algorithms.outer import PPO
from metarl.algorithms.promp import ProMP
from metarl.envs.registry import find_preset
from metarl.networks.mlp import GaussianMLP
from metarl.runs.experiment import Experiment

PUBLISHED = Experiment(
    task=find_preset("walker2d_rand_params", "promp"),
    learner=ProMP(
        policy=GaussianMLP((64, 64), "tanh"),
        outer=PPO(learning_rate=1e-3, epochs=3, clip=0.3),
        inner_lr=0.05,
        kl_penalty=1e-3,
        target_kl=1e-2,
    ),
    num_tasks=40,
    num_envs=20,
    episodes=20,
    iterations=1000,
)
RAND_PARAMS_PROMP = {
    "tuned": replace(
        PUBLISHED,
        learner=replace(
            PUBLISHED.learner,
            outer=PPO(learning_rate=2e-3, epochs=5, clip=0.3),
            inner_lr=0.3,
            gae_lambda=0.9,
        ),
        num_tasks=20,
        iterations=100,
    ),
    "promp": PUBLISHED,
}

PRESETS = (RAND_PARAMS_PROMP,)
