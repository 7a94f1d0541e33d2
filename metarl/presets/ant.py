"""Ants that run forward or backward, or at a goal velocity, by MAML and VariBAD.

``maml2017`` repeats Finn et al. 2017 with the paper's hyperparameters and samples (direction 368M environment steps,
velocity 120M). ``tuned`` is the same task. An ant's inner gradient is mostly noise: two estimates of 20 episodes have a
cosine of 0.01, where half-cheetahs have 0.15 (experiments/inner_gradient_noise.py). Hence few tasks of 50 episodes, a
shorter horizon of credit, a larger inner step, and ten epochs of PPO in place of TRPO's one step; a discount of .95 has
less noise still, but ants that need not turn around stopped at 150 with it, and went on beyond 350 with .99. ``promp``
and ``v5`` are MAML on those definitions of the task, not tuned. VariBAD's presets are as the half-cheetah's; the task
that ``varibad`` was published with rewards running forward in both directions, a bug, so that ``tuned`` has ProMP's.
"""

from dataclasses import replace

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO
from metarl.envs.registry import find_preset
from metarl.networks.mlp import GaussianMLP
from metarl.presets.trials import believing
from metarl.runs.experiment import Experiment

TUNED = Experiment(
    task=find_preset("ant_dir", "maml2017"),
    learner=MAML(policy=GaussianMLP((100, 100), "tanh"), outer=PPO(epochs=10), inner_lr=0.5, gae_lambda=0.9),
    num_tasks=8,
    num_envs=50,
    episodes=50,
    iterations=300,
)
PUBLISHED = Experiment(
    task=TUNED.task,
    learner=MAML(
        policy=GaussianMLP((100, 100), "relu"), outer=TRPO(max_kl=0.01, curvature_samples=16_000), inner_lr=0.1
    ),
    num_tasks=40,
    num_envs=40,
    episodes=40,
    iterations=575,
)
UNTUNED = MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1)

DIR_MAML = {
    "tuned": TUNED,
    "maml2017": PUBLISHED,
    "promp": Experiment(task=find_preset("ant_dir", "promp"), learner=UNTUNED, iterations=1000),
    "v5": Experiment(task=find_preset("ant_dir", "v5"), learner=UNTUNED, iterations=500),
}
VEL_MAML = {
    "tuned": replace(TUNED, task=find_preset("ant_vel", "maml2017"), num_tasks=10, num_envs=40, episodes=40),
    "maml2017": replace(PUBLISHED, task=find_preset("ant_vel", "maml2017"), num_envs=20, episodes=20, iterations=375),
    "v5": Experiment(task=find_preset("ant_vel", "v5"), learner=UNTUNED, iterations=500),
}

DIR_VARIBAD = {
    "tuned": believing(find_preset("ant_dir", "promp"), epochs=8, minibatches=4, trials=80, iterations=200, tuned=True),
    "varibad": believing(find_preset("ant_dir", "varibad"), epochs=2, minibatches=1, trials=16, iterations=15_625),
}

PRESETS = (DIR_MAML, DIR_VARIBAD, VEL_MAML)
