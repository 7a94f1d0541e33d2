"""MAML-TRPO on ants that must run forward or backward.

maml2017 repeats Finn et al. 2017 with the paper's hyperparameters and samples (368M environment steps). tuned is the
same task with what half-cheetahs needed: smooth activations, a shorter credit horizon, smaller meta-batches. promp and
v5 are MAML on those definitions of the task, not tuned.
"""

from envs import AntDir
from metarl import MAML, TRPO, Experiment, GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "tuned": Experiment(
        task=AntDir.presets["maml2017"],
        learner=MAML(
            policy=GaussianMLP((100, 100), "tanh"),
            outer=TRPO(max_kl=0.02, curvature_samples=16_000),
            inner_lr=0.1,
            gae_lambda=0.95,
        ),
        num_tasks=20,
        iterations=500,
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
