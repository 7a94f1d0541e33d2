"""MAML-TRPO on half-cheetahs that must run at a goal velocity.

maml2017 repeats Finn et al. 2017 with the paper's hyperparameters and samples (76M environment steps). tuned is the
same task and test within that budget: smooth activations, a shorter credit horizon and smaller meta-batches, because
the inner gradient's noise is what limits such tasks (direction: cosine of two estimates 0.15 at lambda 1, 0.3 at
0.95). promp and v5 are MAML on those definitions of the task, not tuned.
"""

from envs import HalfCheetahVel
from metarl import MAML, TRPO, Experiment, GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "tuned": Experiment(
        task=HalfCheetahVel.presets["maml2017"],
        learner=MAML(
            policy=GaussianMLP((100, 100), "tanh"),
            outer=TRPO(max_kl=0.02, curvature_samples=16_000),
            inner_lr=0.1,
            gae_lambda=0.95,
        ),
        num_tasks=20,
        iterations=400,
    ),
    "maml2017": Experiment(
        task=HalfCheetahVel.presets["maml2017"],
        learner=MAML(
            policy=GaussianMLP((100, 100), "relu"),
            outer=TRPO(max_kl=0.01, curvature_samples=16_000),
            inner_lr=0.1,
        ),
        num_tasks=40,
        num_envs=10,
        episodes=10,
        iterations=475,
    ),
    "promp": Experiment(
        task=HalfCheetahVel.presets["promp"],
        learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1),
        iterations=1000,
    ),
    "v5": Experiment(
        task=HalfCheetahVel.presets["v5"],
        learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1),
        iterations=500,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[HalfCheetahVel, MAML])
