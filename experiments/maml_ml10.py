"""MAML-TRPO on ML10: 10 Meta-World environments to train on, 5 others to test on, goals hidden.

plus has the hyperparameters and the 20M environment steps of Meta-World+ (2025), metaworld2021 those of the paper of
2021 but for its tanh output, its entropy bonus (5e-5) and its upper bound on the standard deviation. tuned keeps plus's
budget and meta-batch, with standardized observations and a network that CPUs can update.
"""

from envs import ML10
from metarl import MAML, TRPO, Experiment, GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "tuned": Experiment(
        task=ML10(standardize=True),
        learner=MAML(
            policy=GaussianMLP((128, 128), "tanh"),
            outer=TRPO(max_kl=0.02, curvature_samples=30_000),
            inner_lr=0.03,
            gae_lambda=0.95,
        ),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=100,
        eval_interval=10,
        eval_tasks=20,
    ),
    "plus": Experiment(
        task=ML10(),
        learner=MAML(policy=GaussianMLP((512, 512), "tanh"), outer=TRPO(max_kl=0.01), inner_lr=0.1),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=100,
        eval_interval=10,
    ),
    "metaworld2021": Experiment(
        task=ML10(),
        learner=MAML(policy=GaussianMLP((128, 128), "tanh", min_std=0.5), outer=TRPO(max_kl=0.01), inner_lr=1e-4),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=2000,
        eval_interval=50,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[ML10, MAML])
