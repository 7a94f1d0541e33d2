"""MAML-TRPO on ML1: one Meta-World environment, goals hidden (``--env push-v3`` chooses another of the 50).

plus has the hyperparameters and the 2M environment steps of Meta-World+ (2025), metaworld2021 those of the paper of
2021 but for its tanh output, its entropy bonus (5e-5) and its upper bound on the standard deviation. tuned keeps plus's
budget, with standardized observations, smaller meta-batches and a network for CPUs.
"""

from envs import ML1
from metarl import MAML, TRPO, Experiment, GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "tuned": Experiment(
        task=ML1(standardize=True),
        learner=MAML(
            policy=GaussianMLP((64, 64), "tanh"),
            outer=TRPO(max_kl=0.02),
            inner_lr=0.03,
            gae_lambda=0.95,
        ),
        num_tasks=10,
        num_envs=4,
        episodes=4,
        iterations=50,
        eval_interval=10,
        eval_tasks=20,
    ),
    "plus": Experiment(
        task=ML1(),
        learner=MAML(policy=GaussianMLP((512, 512), "tanh"), outer=TRPO(max_kl=0.01), inner_lr=0.1),
        num_tasks=10,
        num_envs=10,
        episodes=10,
        iterations=20,
        eval_interval=5,
    ),
    "metaworld2021": Experiment(
        task=ML1(),
        learner=MAML(policy=GaussianMLP((128, 128), "tanh", min_std=0.5), outer=TRPO(max_kl=0.01), inner_lr=1e-4),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=2000,
        eval_interval=50,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[ML1, MAML])
