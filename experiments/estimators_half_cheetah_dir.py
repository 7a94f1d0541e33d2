"""MAML's estimators and ProMP on half-cheetahs that run forward or backward (ProMP's task, horizon 100), a preset each.

The settings are ours: with the published ones (lambda 1, inner step 0.1; promp_half_cheetah_dir.py) two estimates of an
inner step have a cosine of 0.01, at discount 0.95 and lambda 0.8 one of 0.08 (tests/inner_gradient_noise.py), and 4M
steps taught MAML and ProMP nothing. Task, network, inner step and samples are alike; promp takes PPO's outer step, the
others TRPO's.
"""

from dataclasses import replace

from envs import HalfCheetahDir
from metarl import MAML, PPO, TRPO, Experiment, GaussianMLP, GradientLearner, ProMP
from metarl.run import Command, main

POLICY = GaussianMLP((64, 64), "tanh")
VANILLA = MAML(policy=POLICY, outer=TRPO(max_kl=0.05), inner_lr=0.5, discount=0.95, gae_lambda=0.8)
LEARNERS: dict[str, GradientLearner] = {
    "promp": ProMP(
        policy=POLICY,
        outer=PPO(learning_rate=3e-3, epochs=10, clip=0.3),
        inner_lr=0.5,
        discount=0.95,
        gae_lambda=0.8,
    ),
    "maml": VANILLA,
    "emaml": replace(VANILLA, estimator="emaml", exploration_weight=5e-4),
    "dice": replace(VANILLA, estimator="dice"),
    "lvc": replace(VANILLA, estimator="lvc"),
}
PRESETS = {
    name: Experiment(task=HalfCheetahDir.presets["promp"], learner=learner, num_tasks=20, iterations=70)
    for name, learner in LEARNERS.items()
}

if __name__ == "__main__":
    main(PRESETS, Command[HalfCheetahDir, GradientLearner])
