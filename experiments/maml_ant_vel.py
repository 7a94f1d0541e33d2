"""MAML on ants that must run at a goal velocity.

maml2017 repeats Finn et al. 2017 with the paper's hyperparameters and samples (120M environment steps, MAML-TRPO).
tuned is the same task with what ants that run forward or backward needed (maml_ant_dir.py). v5 is MAML on that
definition of the task, not tuned.
"""

from envs import AntVel
from metarl import MAML, PPO, TRPO, Experiment, GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "tuned": Experiment(
        task=AntVel.presets["maml2017"],
        learner=MAML(
            policy=GaussianMLP((100, 100), "tanh"),
            outer=PPO(epochs=10),
            inner_lr=0.5,
            gae_lambda=0.9,
        ),
        num_tasks=10,
        num_envs=40,
        episodes=40,
        iterations=300,
    ),
    "maml2017": Experiment(
        task=AntVel.presets["maml2017"],
        learner=MAML(
            policy=GaussianMLP((100, 100), "relu"),
            outer=TRPO(max_kl=0.01, curvature_samples=16_000),
            inner_lr=0.1,
        ),
        num_tasks=40,
        num_envs=20,
        episodes=20,
        iterations=375,
    ),
    "v5": Experiment(
        task=AntVel.presets["v5"],
        learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1),
        iterations=500,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[AntVel, MAML])
