"""ProMP on ML10: 10 Meta-World environments to train on, 5 others to test on, goals hidden.

No paper reports it. plus has the budget, meta-batch and network of Meta-World+'s MAML (2025); small is maml_ml10.py's
preset tuned with ProMP's published outer loss in the place of TRPO, not tuned itself.
"""

from envs import ML10
from metarl import PPO, Experiment, GaussianMLP, ProMP
from metarl.run import Command, main

PRESETS = {
    "small": Experiment(
        task=ML10(standardize=True),
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
        eval_interval=10,
        eval_tasks=20,
    ),
    "plus": Experiment(
        task=ML10(),
        learner=ProMP(policy=GaussianMLP((512, 512), "tanh"), outer=PPO(), inner_lr=0.1),
        num_tasks=20,
        num_envs=10,
        episodes=10,
        iterations=100,
        eval_interval=10,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[ML10, ProMP])
