"""ProMP on half-cheetahs that must run forward or backward (Rothfuss et al. 2019, figure 2).

promp has the published task and hyperparameters (160M environment steps; experiments/all_envs_eval/ppo_run_all.py).
"""

from envs import HalfCheetahDir
from metarl import PPO, Experiment, GaussianMLP, ProMP
from metarl.run import Command, main

PRESETS = {
    "promp": Experiment(
        task=HalfCheetahDir.presets["promp"],
        learner=ProMP(
            policy=GaussianMLP((64, 64), "tanh"),
            outer=PPO(learning_rate=1e-3, epochs=5, clip=0.3),
            inner_lr=0.1,
            kl_penalty=5e-4,
        ),
        num_tasks=40,
        num_envs=20,
        episodes=20,
        iterations=1000,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[HalfCheetahDir, ProMP])
