"""ProMP on walkers with masses, inertias, dampings and friction of their own (Rothfuss et al. 2019, figure 2).

promp has the published task and hyperparameters (320M environment steps; experiments/all_envs_eval/ppo_run_all.py):
half of the other tasks' inner step, three epochs, and a penalty that holds the inner KL near .01.
"""

from envs import Walker2dRandParams
from metarl import PPO, Experiment, GaussianMLP, ProMP
from metarl.run import Command, main

PRESETS = {
    "promp": Experiment(
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
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[Walker2dRandParams, ProMP])
