"""RL² on ML1: one Meta-World environment, goals hidden (``--env push-v3`` chooses another of the 50).

plus has the hyperparameters and the 2M environment steps of Meta-World+ (2025), metaworld2021 those of the paper of
2021 but for its upper bound on the standard deviation; tuned keeps plus's budget with standardized observations,
shorter trials and a network that CPUs can update.
"""

from envs import ML1
from metarl import RL2, Experiment, LinearFeatureBaseline, RecurrentPolicy
from metarl.run import Command, main

PRESETS = {
    "tuned": Experiment(
        task=ML1(standardize=True),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=64, encoder_sizes=(64,)),
            reward_scale=0.1,
            standardize_reward=True,
            gae_lambda=0.95,
            value_lambda=0.95,
            learning_rate=2e-3,
            epochs=6,
            minibatches=4,
            entropy_bonus=0.002,
            anneal_updates=50,
        ),
        num_tasks=40,
        num_envs=1,
        episodes=2,
        iterations=50,
        eval_interval=10,
        eval_tasks=50,
    ),
    "plus": Experiment(
        task=ML1(),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=256, encoder_sizes=(256, 256)),
            reward_scale=0.1,
            gae_lambda=0.95,
            entropy_bonus=5e-3,
            bptt_steps=250,
        ),
        num_tasks=10,
        num_envs=1,
        episodes=10,
        iterations=40,
        eval_interval=10,
    ),
    "metaworld2021": Experiment(
        task=ML1(),
        learner=RL2(
            policy=RecurrentPolicy(memory="gru", memory_size=256),
            baseline=LinearFeatureBaseline(),
            reward_scale=0.1,
            gae_lambda=0.95,
            entropy_bonus=5e-6,
            bptt_steps=250,
        ),
        num_tasks=25,
        num_envs=1,
        episodes=10,
        iterations=4000,
        eval_interval=50,
    ),
}

if __name__ == "__main__":
    main(PRESETS, Command[ML1, RL2])
