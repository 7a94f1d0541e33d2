"""A point that must find a goal it cannot see.

``maml2017`` repeats Finn et al. 2017 within its sample budget (8M environment steps).

``corner`` is ProMP's task: four corners, three inner steps, and a reward that is silent around the start, so that inner
steps must explore before they exploit. ProMP's paper (Rothfuss et al. 2019, figure 5): estimators with credit for the
sampling solve what MAML as published does not. The presets named after an estimator or a learner share task, network
and samples with it. ProMP and Meta-SGD take PPO's outer step, Reptile and ES-MAML their own, the others TRPO's.

RL² plays two episodes a trial; learning rate and entropy bonus end at zero.
"""

from dataclasses import replace

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.envs.registry import find_preset
from metarl.networks.mlp import GaussianMLP
from metarl.presets.trials import two_episodes
from metarl.runs.experiment import Experiment

CORNER = find_preset("navigation", "corner")
POLICY = GaussianMLP((64, 64), "tanh")
VANILLA = MAML(policy=POLICY, adapt_steps=3, outer=TRPO(max_kl=0.01))

MAMLS = {
    "maml2017": Experiment(
        task=find_preset("navigation", "maml2017"),
        learner=MAML(policy=GaussianMLP((100, 100), "relu"), outer=TRPO(max_kl=0.01), inner_lr=0.5),
        num_tasks=20,
    ),
    **{
        name: Experiment(task=CORNER, learner=learner, iterations=500)
        for name, learner in {
            "corner": VANILLA,
            "fomaml": replace(VANILLA, estimator="fomaml"),
            "emaml": replace(VANILLA, estimator="emaml", exploration_weight=5e-4),
            "dice": replace(VANILLA, estimator="dice"),
            "lvc": replace(VANILLA, estimator="lvc"),
            "meta_sgd": replace(VANILLA, outer=PPO(), estimator="lvc", learn_inner_lr=True),
            "cavia": replace(VANILLA, policy=GaussianMLP((64, 64), "tanh", context_size=8), inner_lr=1.0, outer=TRPO()),
        }.items()
    },
}
OTHERS = [
    {"corner": Experiment(task=CORNER, learner=learner, iterations=500)}
    for learner in (
        ProMP(policy=POLICY, adapt_steps=3, outer=PPO(learning_rate=1e-3, epochs=5, clip=0.3)),
        Reptile(policy=POLICY, adapt_steps=3),
        ESMAML(policy=POLICY, adapt_steps=3, pairs=5),
    )
]


PRESETS = (MAMLS, *OTHERS, {name: two_episodes("navigation", name, trials=120) for name in ("corner", "maml2017")})
