"""PEARL: ``pearl`` has the settings of Rakelly et al. 2019, ``small`` ours for a CPU.

``pearl`` follows katerakelly/oyster (``configs/``): networks, batches, learning rates, 500 iterations of 5 tasks, two
episodes before and two after the posterior takes them up (there three). Its first pool of data is collected while
gradient steps wait (``warmup_steps``), not before the first iteration. At 300 units and 16 times 256 transitions a
gradient step takes half a second of one core, and an iteration has thousands: it is meant for a GPU. ``small`` has an
eighth of the batch, a tenth of the weights, a step size three times as large, and is done in half an hour.
"""

from dataclasses import replace

from metarl.algorithms.pearl import PEARL
from metarl.envs.registry import find_preset
from metarl.runs.experiment import Experiment

PUBLISHED = PEARL(context_size=100, warmup_steps=200_000)
SMALL = PEARL(
    hidden_sizes=(128, 128),
    encoder_sizes=(64, 64),
    num_slots=400,
    capacity=1000,
    context_size=64,
    warmup_steps=12_800,
    gradient_steps=400,
    meta_batch=8,
    batch_size=64,
    learning_rate=1e-3,
)


def pair(task: str, task_preset: str, published: PEARL, small: PEARL) -> dict[str, Experiment]:
    definition = find_preset(task, task_preset)
    return {
        "small": Experiment(
            task=definition, learner=small, num_tasks=8, num_envs=2, episodes=2, iterations=150, eval_interval=5
        ),
        "pearl": Experiment(
            task=definition, learner=published, num_tasks=5, num_envs=2, episodes=2, iterations=500, eval_interval=10
        ),
    }


# two directions: as many slots, each with room for what all of a meta-batch bring
TWO_TASKS = replace(SMALL, num_slots=2, capacity=200_000)
PUBLISHED_TWO = replace(PUBLISHED, num_slots=2, capacity=1_000_000, meta_batch=4, context_size=256, warmup_steps=4000)
CHEETAH_VEL = pair("half_cheetah_vel", "promp", PUBLISHED, SMALL)
CHEETAH_DIR = pair("half_cheetah_dir", "promp", PUBLISHED_TWO, TWO_TASKS)
ANT_DIR = pair("ant_dir", "pearl", replace(PUBLISHED_TWO, gradient_steps=4000), TWO_TASKS)
WALKER = pair(
    "walker2d_rand_params",
    "pearl",
    replace(PUBLISHED, encode_next_obs=True, num_slots=40, meta_batch=10, gradient_steps=4000, warmup_steps=80_000),
    replace(SMALL, encode_next_obs=True),
)
SPARSE = replace(
    PUBLISHED,
    adapt_steps=9,
    num_slots=80,
    capacity=100_000,
    context="all",
    context_size=1024,
    warmup_steps=16_000,
    gradient_steps=1000,
    discount=0.9,
    reward_scale=100.0,
    kl_weight=1.0,
    critic_reward="distance",
)
HALF_CIRCLE = {
    "small": Experiment(
        task=find_preset("half_circle", "pearl"),
        learner=replace(
            SPARSE,
            adapt_steps=3,
            reward_scale=20.0,
            kl_weight=0.1,
            hidden_sizes=(64, 64),
            encoder_sizes=(64, 64),
            capacity=4000,
            context_size=128,
            warmup_steps=4000,
            gradient_steps=400,
            meta_batch=8,
            batch_size=64,
            learning_rate=1e-3,
        ),
        num_tasks=10,
        num_envs=5,
        episodes=5,
        iterations=100,
        eval_interval=5,
    ),
    "pearl": Experiment(
        task=find_preset("half_circle", "pearl"),
        learner=SPARSE,
        num_tasks=10,
        num_envs=5,
        episodes=5,
        iterations=500,
        eval_interval=10,
    ),
}

PRESETS = (CHEETAH_VEL, CHEETAH_DIR, ANT_DIR, WALKER, HALF_CIRCLE)
