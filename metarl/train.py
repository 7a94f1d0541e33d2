"""The training loop: the same for every meta-learner, and the paper's algorithm box."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metarl import ranks
from metarl.envs.api import TaskEnv
from metarl.envs.registry import TaskDistribution
from metarl.faults import require_enough
from metarl.metrics import adaptation_metrics
from metarl.rollout import rollout
from metarl.types import Experience, MetaLearner, Metrics, remembers

MAX_SKIPPED = 3  # updates in a row


@dataclass
class Progress:
    """Where training stands; together with the environment, everything it continues from."""

    learner_state: Any
    tasks: torch.Generator
    """Draws the tasks; nothing else does, so the number of worlds has no influence on them."""
    actions: torch.Generator
    """Draws the actions."""
    updates: torch.Generator
    """Draws what explorers and meta-updates need; in every rank the same numbers."""
    iteration: int = 0
    """Iterations completed."""
    env_steps: int = 0
    """Environment steps taken, adaptation included."""


def train(
    learner: MetaLearner,
    tasks: TaskDistribution,
    env: TaskEnv,
    progress: Progress,
    *,
    iterations: int,
    episodes: int,
    begin: Callable[[], None],
    log: Callable[[Metrics], None],
    notice: Callable[[TaskEnv, TaskDistribution, Tensor], None] = lambda *_: None,
) -> None:
    """Trains until ``iterations`` are complete. Line numbers: Finn et al. 2017, algorithm 3.

    Args:
        episodes: episodes a world plays for each batch of experience.
        begin: called before an iteration changes anything; ``progress`` and ``env`` may be saved there.
        log: called after each iteration with its metrics.
        notice: called with the environment and its tasks before they are given up, for what is to be said of them.

    Raises:
        FloatingPointError: the policy diverged, or too many episodes did; or updates were skipped several times in a
            row, or as long as the training went.
    """
    began, skipped = progress.iteration, 0
    learner, trials = scheduled(learner, iterations), remembers(learner)
    while progress.iteration < iterations:  # 2
        begin()
        clock = Stopwatch(env.device)
        sampled = ranks.own(tasks.sample(env.num_tasks * ranks.size(), progress.tasks))  # 3: T_i ~ p(T)
        env.set_tasks(sampled)
        explorer = learner.explorer(progress.learner_state, env.num_tasks, progress.updates)
        actor, batches = explorer, []
        for step in range(learner.adapt_steps + 1):  # 4: all T_i at once
            with clock("sampling"):  # 5, 8: D_i, D'_i
                batch, actor = rollout(env, learner.act, actor, episodes, progress.actions, trials=trials)
            require_enough(batch, env, tasks, sampled, episodes=episodes, trials=trials)
            with clock("optimization"):
                batches.append(learner.credit(progress.learner_state, batch))
                if step < learner.adapt_steps:
                    actor = learner.adapt(progress.learner_state, actor, batches[-1])  # 6-7
        with clock("optimization"):
            experience = Experience(sampled, explorer, batches)
            progress.learner_state, metrics = learner.update(progress.learner_state, experience, progress.updates)  # 10
        num_steps = sum(ranks.everyone(sum(int(batch.valid.sum()) for batch in batches)))
        progress.iteration += 1
        progress.env_steps += num_steps
        found = adaptation_metrics(batches, episodes, tasks.labels(sampled), has_success=env.spec.has_success)
        found = ranks.mean_metrics(found)
        notice(env, tasks, sampled)
        log(metrics | found | speed(num_steps, clock.seconds) | memory(env.device) | physics_trouble(env))
        skipped = skipped + 1 if metrics.get("train/skipped_updates") else 0
        if skipped and skipped in (MAX_SKIPPED, iterations - began):
            many = f"{skipped} updates in a row were skipped" if skipped > 1 else "the only update was skipped"
            advice = "start a run with smaller steps (inner_lr, max_kl, learning_rate)"
            raise FloatingPointError(f"{many}, for the meta-gradient was not finite: {advice}")


def scheduled(learner: MetaLearner, iterations: int) -> MetaLearner:
    """The learner with its schedule over so many iterations, where it has one that follows the run's length."""
    if learner.describe().anneal_updates is None:
        return replace(learner, anneal_updates=iterations)  # type: ignore[type-var]
    return learner


def speed(num_steps: int, seconds: dict[str, float]) -> Metrics:
    """Environment steps a second, and the seconds of the iteration by what they were spent on."""
    total = sum(seconds.values())
    return {
        "time/env_steps_per_second": num_steps / total,
        "time/sampling_steps_per_second": num_steps / seconds["sampling"],
        "time/sampling_seconds": seconds["sampling"],
        "time/optimization_seconds": seconds["optimization"],
    }


def memory(device: torch.device) -> Metrics:
    """The GPU memory in use, by tensors and physics alike, what torch keeps for later included."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"time/gpu_memory_gib": (total - free) / 2**30}


def physics_trouble(env: TaskEnv) -> Metrics:
    return {"train/diverged_worlds": float(env.num_diverged), "train/overflowed_episodes": float(env.num_overflowed)}


class Stopwatch:
    """Wall-clock seconds by name, until the device is done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
