"""Environment steps a second with policy inference in the loop, a meta-iteration, and memory, on a GPU.

``python tests/benchmark_gpu.py`` on a GPU machine takes some 5 minutes, the first time a few more for the kernels.
``--device cpu --physics warp --scale 0.001`` runs the same path on Warp's CPU device, to see that it works.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import TRPO
from metarl.envs.metaworld import ML1, ML10
from metarl.envs.registry import TaskDistribution, find_preset
from metarl.networks.mlp import GaussianMLP
from metarl.rollout import rollout
from metarl.seeds import stream
from metarl.train import Progress, memory, train

STEPS = 50
TURNS = 3


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    task: TaskDistribution
    num_tasks: int
    num_envs: int
    target: int
    """Steps a second that issue 5 asks of an H200."""


ROWS = [
    Row("half-cheetah, 5 substeps", find_preset("half_cheetah_dir", "promp"), 40, 512, 1_000_000),
    Row("half-cheetah, 5 substeps", find_preset("half_cheetah_dir", "promp"), 40, 2048, 1_000_000),
    Row("ant, 5 substeps", find_preset("ant_dir"), 40, 256, 300_000),
    Row("Meta-World reach", ML1(env="reach-v3"), 50, 164, 150_000),
    Row("ML10", ML10(), 20, 512, 100_000),
]


def throughput(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """A MAML policy acts in every world for ``STEPS`` steps, several times."""
    task = dataclasses.replace(row.task, horizon=STEPS)
    num_envs = max(1, int(row.num_envs * options.scale))
    learner = MAML(policy=GaussianMLP((100, 100), "tanh"))
    env = task.make(row.num_tasks, num_envs, seed=0, device=options.device, physics=options.physics)
    env.set_tasks(task.sample(row.num_tasks, stream(0, "tasks")))
    generator = stream(0, "actions", device=options.device)
    actor = learner.actor(learner.init(env.spec, generator), row.num_tasks)

    def play() -> None:
        rollout(env, learner.act, actor, 1, generator)

    first, seconds = seconds_of(play, options), [seconds_of(play, options) for _ in range(TURNS)]
    num_steps = row.num_tasks * num_envs * STEPS
    found = {"worlds": row.num_tasks * num_envs, "steps_per_second": num_steps / statistics.median(seconds)}
    return {
        "name": row.name,
        "physics": options.physics,
        **found,
        "target": row.target,
        "first_seconds": first,
        "overflowed": env.num_overflowed,
    }


def meta_iteration(options: argparse.Namespace) -> dict[str, Any]:
    """MAML-TRPO, 40 tasks x 512 worlds x 100 steps, update included; asked: under 10 s."""
    task = find_preset("half_cheetah_dir", "promp")
    num_envs = max(1, int(512 * options.scale))
    learner = MAML(policy=GaussianMLP((64, 64), "tanh"), outer=TRPO(max_kl=0.01, curvature_samples=100_000))
    env = task.make(40, num_envs, seed=0, device=options.device, physics=options.physics)
    state = learner.init(env.spec, stream(0, "parameters", device=options.device))
    actions, updates = (stream(0, name, device=options.device) for name in ("actions", "updates"))
    progress = Progress(state, stream(0, "tasks"), actions, updates)
    logged: list[dict[str, float]] = []
    train(learner, task, env, progress, iterations=1 + TURNS, episodes=1, begin=lambda: None, log=logged.append)
    parts = ("time/sampling_seconds", "time/optimization_seconds", "time/gpu_memory_gib")
    found = {name: statistics.median(x[name] for x in logged[1:]) for name in parts if name in logged[0]}
    return {"name": "MAML-TRPO iteration", "worlds": 40 * num_envs, "target": 10.0, **found}


def seconds_of(work: Callable[[], None], options: argparse.Namespace) -> float:
    began = time.perf_counter()
    work()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--physics", default="warp")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of worlds")
    parser.add_argument("--out", default=None, help="file for the numbers, one JSON object a line")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    work = [(row.name, lambda row=row: throughput(row, options)) for row in ROWS]
    work.append(("MAML-TRPO iteration", lambda: meta_iteration(options)))
    for name, measure in work:
        if options.only not in name:
            continue
        found = measure() | {f"memory_{key}": value for key, value in memory(torch.device(options.device)).items()}
        print(json.dumps(found), flush=True)
        if options.out:
            with open(options.out, "a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
