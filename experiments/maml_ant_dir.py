"""MAML on ants that must run forward or backward.

maml2017 repeats Finn et al. 2017 with the paper's hyperparameters and samples (368M environment steps, MAML-TRPO).
tuned is the same task. An ant's inner gradient is mostly noise: two estimates of 20 episodes have a cosine of 0.01,
where half-cheetahs have 0.15 (tests/inner_gradient_noise.py). Hence few tasks of 50 episodes, a shorter horizon of
credit, a larger inner step, and ten epochs of PPO in place of TRPO's one step; a discount of .95 has less noise still,
but ants that need not turn around stopped at 150 with it, and went on beyond 350 with .99. promp and v5 are MAML on
those definitions of the task, not tuned.
"""

from envs import AntDir
from metarl import MAML, PPO, TRPO, Experiment, GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "tuned": Experiment(
        task=AntDir.presets["maml2017"],
        learner=MAML(
            policy=GaussianMLP((100, 100), "tanh"),
            outer=PPO(epochs=10),
            inner_lr=0.5,
            gae_lambda=0.9,
        ),
        num_tasks=8,
        num_envs=50,
        episodes=50,
        iterations=300,
    ),
    "maml2017": Experiment(
        task=AntDir.presets["maml2017"],
        learner=MAML(
            policy=GaussianMLP((100, 100), "relu"),
            outer=TRPO(max_kl=0.01, curvature_samples=16_000),
            inner_lr=0.1,
        ),
        num_tasks=40,
        num_envs=40,
        episodes=40,
        iterations=575,
    ),
    "promp": Experiment(
        task=AntDir.presets["promp"],
        learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1),
        iterations=1000,
    ),
    "v5": Experiment(
        task=AntDir.presets["v5"],
        learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1),
        iterations=500,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[AntDir, MAML])
