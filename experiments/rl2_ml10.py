"""RL² on ML10: 10 Meta-World environments to train on, 5 others to test on, goals hidden.

plus has the hyperparameters and the 20M environment steps of Meta-World+ (2025), metaworld2021 those of the paper of
2021 but for its upper bound on the standard deviation; tuned keeps plus's budget with standardized observations,
shorter trials and a network that CPUs can update.
"""

from envs import ML10
from metarl import RL2, Experiment, LinearFeatureBaseline, RecurrentPolicy
from metarl.run import Command, main

PRESETS = {
    "tuned": Experiment(
        task=ML10(standardize=True),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=128, encoder_sizes=(128,)),
            reward_scale=0.1,
            standardize_reward=True,
            gae_lambda=0.95,
            value_lambda=0.95,
            learning_rate=1e-3,
            epochs=6,
            minibatches=8,
            entropy_bonus=0.002,
            anneal_updates=125,
        ),
        num_tasks=160,
        num_envs=1,
        episodes=2,
        iterations=125,
        eval_interval=25,
        eval_tasks=50,
    ),
    "plus": Experiment(
        task=ML10(),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=256, encoder_sizes=(256, 256)),
            reward_scale=0.1,
            gae_lambda=0.95,
            entropy_bonus=5e-3,
            bptt_steps=250,
        ),
        num_tasks=20,
        num_envs=1,
        episodes=10,
        iterations=200,
        eval_interval=20,
    ),
    "metaworld2021": Experiment(
        task=ML10(),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=256),
            baseline=LinearFeatureBaseline(),
            reward_scale=0.1,
            gae_lambda=0.95,
            entropy_bonus=5e-6,
            bptt_steps=250,
        ),
        num_tasks=10,
        num_envs=1,
        episodes=10,
        iterations=10_000,
        eval_interval=100,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[ML10, RL2])
