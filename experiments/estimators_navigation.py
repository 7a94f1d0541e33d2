"""MAML's estimators and their kin on ProMP's four corners: a preset each; task, network and samples alike.

promp and meta_sgd take PPO's outer step, reptile and es_maml their own, the others TRPO's.

Three inner steps; the reward is silent around the start, so that inner steps must explore before they exploit. ProMP's
paper (Rothfuss et al. 2019, figure 5): estimators with credit for the sampling solve what MAML as published does not.
"""

from envs import Navigation
from metarl import ESMAML, MAML, PPO, TRPO, Experiment, GaussianMLP, GradientLearner, ProMP, Reptile
from metarl.run import Command, main

POLICY = GaussianMLP((64, 64), "tanh")
LEARNERS: dict[str, GradientLearner] = {
    "promp": ProMP(policy=POLICY, adapt_steps=3, outer=PPO(learning_rate=1e-3, epochs=5, clip=0.3)),
    "maml": MAML(policy=POLICY, adapt_steps=3, outer=TRPO(max_kl=0.01)),
    "fomaml": MAML(policy=POLICY, adapt_steps=3, outer=TRPO(max_kl=0.01), estimator="fomaml"),
    "emaml": MAML(policy=POLICY, adapt_steps=3, outer=TRPO(max_kl=0.01), estimator="emaml", exploration_weight=5e-4),
    "dice": MAML(policy=POLICY, adapt_steps=3, outer=TRPO(max_kl=0.01), estimator="dice"),
    "lvc": MAML(policy=POLICY, adapt_steps=3, outer=TRPO(max_kl=0.01), estimator="lvc"),
    "meta_sgd": MAML(policy=POLICY, adapt_steps=3, outer=PPO(), estimator="lvc", learn_inner_lr=True),
    "cavia": MAML(policy=GaussianMLP((64, 64), "tanh", context_size=8), adapt_steps=3, inner_lr=1.0, outer=TRPO()),
    "reptile": Reptile(policy=POLICY, adapt_steps=3),
    "es_maml": ESMAML(policy=POLICY, adapt_steps=3, pairs=5),
}
PRESETS = {
    name: Experiment(task=Navigation.presets["corner"], learner=learner, iterations=500)
    for name, learner in LEARNERS.items()
}

if __name__ == "__main__":
    main(PRESETS, Command[Navigation, GradientLearner])
