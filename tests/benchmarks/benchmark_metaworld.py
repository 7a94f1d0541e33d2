"""``make bench``: env steps a second of ML10's ten training environments, ours beside those of others, in turns.

EnvPool's native Meta-World takes part where it is installed (``pip install 'envpool==1.2.4'``); a task's goal cannot be
set there. Every contestant acts at random on all cores; SyncVectorEnv knows one.
"""

import statistics
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from benchmark import REPEATS, measure, report
from official_metaworld import official

from metarl.envs.metaworld import ML10
from metarl.envs.metaworld.sawyer import SAWYER

NUM_TASKS, NUM_ENVS, NUM_STEPS = 20, 20, 25
OFFICIAL_STEPS = 20


def ours() -> Callable[[], None]:
    """20 tasks, two of each environment, 20 worlds each."""
    benchmark, generator = ML10(), torch.Generator().manual_seed(0)
    env = benchmark.make(NUM_TASKS, NUM_ENVS, seed=0)
    env.set_tasks(benchmark.sample(NUM_TASKS, generator))
    env.reset()
    actions = 2 * torch.rand(NUM_STEPS, NUM_TASKS, NUM_ENVS, 4, generator=generator) - 1

    def run() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # as rollouts do
        for action in actions:
            env.step(action)
        torch.set_num_threads(before)

    return run


def vectorized(kind: type[gymnasium.vector.VectorEnv]) -> Callable[[], None]:
    """Meta-World's own environments, one of each."""
    goals = {name: vecs[0, 1:].numpy() for name, vecs in ML10().train_goals.items()}

    def make(name: str) -> Callable[[], gymnasium.Env]:
        length = len(SAWYER[name].vec_low)
        return lambda: official(name, goals[name][:length])

    env = kind([make(name) for name in goals])
    env.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (OFFICIAL_STEPS, len(goals), 4)).astype(np.float32)
    clock = 0

    def run() -> None:
        nonlocal clock
        if clock + OFFICIAL_STEPS > ML10().horizon:
            env.reset()
            clock = 0
        for action in actions:
            env.step(action)
        clock += OFFICIAL_STEPS

    return run


def envpool() -> Callable[[], None] | None:
    """EnvPool's, environment by environment, as many worlds and steps as ours; None where it is not installed."""
    try:
        import envpool
    except ImportError:
        return None
    num_envs = NUM_TASKS * NUM_ENVS // len(ML10.train_environments)
    envs = []
    for name in ML10.train_environments:
        words = name.removesuffix("-v3").split("-")
        env = envpool.make_gymnasium("MetaWorld/" + "".join(map(str.capitalize, words)) + "-v3", num_envs=num_envs)
        env.reset()
        envs.append(env)
    actions = np.random.default_rng(0).uniform(-1, 1, (NUM_STEPS, num_envs, 4)).astype(np.float32)

    def run() -> None:
        for env in envs:
            for action in actions:
                env.step(action)

    return run


def main() -> None:
    contestants = {
        "ours": ours(),
        "Meta-World SyncVectorEnv": vectorized(gymnasium.vector.SyncVectorEnv),
        "Meta-World AsyncVectorEnv": vectorized(gymnasium.vector.AsyncVectorEnv),
    }
    native = envpool()
    if native is not None:
        contestants["EnvPool"] = native
    steps = dict.fromkeys(contestants, NUM_TASKS * NUM_ENVS * NUM_STEPS)
    steps |= {name: 10 * OFFICIAL_STEPS for name in contestants if name.startswith("Meta-World")}
    seconds = measure(contestants)
    rates = {name: [steps[name] / value for value in values] for name, values in seconds.items()}
    print("\nML10, its 10 training environments, random actions: env steps/s, median")
    for name, values in rates.items():
        print(f"  {name:<28} {statistics.median(values):>10,.0f}")
    print("\nratios: median [fastest, slowest turn]")
    targets = {"Meta-World SyncVectorEnv": ">= 6", "Meta-World AsyncVectorEnv": "", "EnvPool": ">= 0.8"}
    for name in list(contestants)[1:]:
        report(f"ours / {name}", [rates["ours"][i] / rates[name][i] for i in range(REPEATS)], targets[name])


if __name__ == "__main__":
    main()
