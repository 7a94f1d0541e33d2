"""MAML-TRPO on a point that must find a goal it cannot see.

The preset maml2017 repeats Finn et al. 2017 within its sample budget (8M environment steps); corner is ProMP's sparse
reward with three inner steps.
"""

from envs import Navigation
from metarl import MAML, TRPO, Experiment, GaussianMLP
from metarl.run import Command, main

PRESETS = {
    "maml2017": Experiment(
        task=Navigation.presets["maml2017"],
        learner=MAML(policy=GaussianMLP((100, 100), "relu"), outer=TRPO(max_kl=0.01), inner_lr=0.5),
        num_tasks=20,
    ),
    "corner": Experiment(
        task=Navigation.presets["corner"],
        learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1, adapt_steps=3),
        iterations=500,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[Navigation, MAML])
