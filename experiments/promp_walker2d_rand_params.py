"""ProMP on walkers with masses, inertias, dampings and friction of their own (Rothfuss et al. 2019, figure 2).

promp has the published task and hyperparameters (320M environment steps; experiments/all_envs_eval/ppo_run_all.py):
half of the other tasks' inner step, three epochs, and a penalty that holds the inner KL near .01. tuned is the same
task with an inner step six times as long and lambda 0.9, so that it says more than noise: with promp's, a policy of
1.3M steps earns as much before the step as after it.
"""

from dataclasses import replace

from envs import Walker2dRandParams
from metarl import PPO, Experiment, GaussianMLP, ProMP
from metarl.run import Command, main

PUBLISHED = Experiment(
    task=Walker2dRandParams.presets["promp"],
    learner=ProMP(
        policy=GaussianMLP((64, 64), "tanh"),
        outer=PPO(learning_rate=1e-3, epochs=3, clip=0.3),
        inner_lr=0.05,
        kl_penalty=1e-3,
        target_kl=1e-2,
    ),
    num_tasks=40,
    num_envs=20,
    episodes=20,
    iterations=1000,
)
PRESETS = {
    "tuned": replace(
        PUBLISHED,
        learner=replace(
            PUBLISHED.learner,
            outer=PPO(learning_rate=2e-3, epochs=5, clip=0.3),
            inner_lr=0.3,
            gae_lambda=0.9,
        ),
        num_tasks=20,
        iterations=100,
    ),
    "promp": PUBLISHED,
}

if __name__ == "__main__":
    main(PRESETS, Command[Walker2dRandParams, ProMP])
