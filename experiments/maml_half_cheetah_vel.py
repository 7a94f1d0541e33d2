"""MAML-TRPO on half-cheetahs that must run at a goal velocity.

The preset maml2017 repeats Finn et al. 2017 at its own sample budget: rllab's clock, 76M environment steps.
"""

from envs.half_cheetah_vel import HalfCheetahVel
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import TRPO
from metarl.experiment import Experiment
from metarl.policies import GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "maml2017": Experiment(
        task=HalfCheetahVel.presets["maml2017"],
        learner=MAML(policy=GaussianMLP((100, 100), "relu"), outer=TRPO(max_kl=0.01, curvature_samples=16_000), inner_lr=0.1),
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
