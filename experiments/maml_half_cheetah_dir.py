"""MAML-TRPO on half-cheetahs that must run forward or backward.

maml2017 repeats Finn et al. 2017 with the paper's hyperparameters and samples (32M environment steps). tuned is the
same task and test within that budget: smooth activations, a shorter credit horizon and smaller meta-batches, because
the inner gradient's noise is what limits this task (cosine of two estimates 0.15 at lambda 1, 0.3 at 0.95;
tests/inner_gradient_noise.py). demo is tuned, stopped after a few minutes. gpu is tuned with ten times its worlds and
four times its steps, for --device cuda. promp and v5 are MAML on those definitions of the task, not tuned.
"""

from dataclasses import replace

from envs import HalfCheetahDir
from metarl import MAML, TRPO, Experiment, GaussianMLP
from metarl.run import Command, main

TUNED = Experiment(
    task=HalfCheetahDir.presets["maml2017"],
    learner=MAML(
        policy=GaussianMLP((100, 100), "tanh"),
        outer=TRPO(max_kl=0.02, curvature_samples=16_000),
        inner_lr=0.1,
        gae_lambda=0.95,
    ),
    num_tasks=20,
    iterations=150,
)
PRESETS = {
    "tuned": TUNED,
    "demo": replace(TUNED, iterations=25, eval_interval=5, eval_tasks=10),
    "gpu": replace(
        TUNED,
        learner=replace(TUNED.learner, outer=TRPO(max_kl=0.02, curvature_samples=100_000), chunk_samples=1_000_000),
        num_tasks=40,
        num_envs=100,
        episodes=100,
        iterations=60,
    ),
    "maml2017": Experiment(
        task=HalfCheetahDir.presets["maml2017"],
        learner=MAML(
            policy=GaussianMLP((100, 100), "relu"),
            outer=TRPO(max_kl=0.02, curvature_samples=16_000),
            inner_lr=0.1,
        ),
        num_tasks=40,
        num_envs=20,
        episodes=20,
        iterations=100,
    ),
    "promp": Experiment(
        task=HalfCheetahDir.presets["promp"],
        learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1),
        iterations=1000,
    ),
    "v5": Experiment(
        task=HalfCheetahDir.presets["v5"],
        learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1),
        iterations=500,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[HalfCheetahDir, MAML])
