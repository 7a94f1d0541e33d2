"""MAML-TRPO on half-cheetahs that must run forward or backward.

The preset maml2017 repeats Finn et al. 2017 at its own sample budget: rllab's clock, 32M environment steps.
"""

from envs.half_cheetah_dir import HalfCheetahDir
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import TRPO
from metarl.experiment import Experiment
from metarl.policies import GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "maml2017": Experiment(
        task=HalfCheetahDir.presets["maml2017"],
        learner=MAML(policy=GaussianMLP((100, 100), "relu"), outer=TRPO(max_kl=0.02, curvature_samples=16_000), inner_lr=0.1),
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
