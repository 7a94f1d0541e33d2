"""Seeds in lockstep beside the same seeds one after the other: CPU seconds in turns, and torch operations a step.

    python tests/benchmarks/benchmark_lockstep.py [half_cheetah | half_cheetah_rl2 | warp | ml10 | ml10_rl2] [turns]

Both train in this process, on one thread; rollouts are timed within them. Operations are those that a GPU would launch
for: views are not counted, nor what physics does.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

import metarl.lockstep
from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.metaworld.benchmarks import ML10
from metarl.networks.mlp import GaussianMLP
from metarl.rollout import PLAYER, play
from metarl.runs import lockstep
from metarl.runs.experiment import Experiment
from metarl.runs.session import execute

SEEDS = 3
BASE = Experiment(
    task=HalfCheetahDir(horizon=100),
    learner=MAML(policy=GaussianMLP((100, 100), "relu")),
    num_tasks=20,
    num_envs=2,
    episodes=2,
    iterations=1,
    eval_interval=0,
    checkpoint_interval=100,
    num_threads=1,
)
ON_ML10 = replace(BASE, task=ML10(horizon=50), learner=MAML(policy=GaussianMLP((128, 128), "tanh")))
KINDS = {
    "half_cheetah": BASE,
    "half_cheetah_rl2": replace(BASE, learner=RL2(epochs=1)),
    "warp": replace(BASE, task=HalfCheetahDir(horizon=20), physics="warp"),
    "ml10": ON_ML10,
    "ml10_rl2": replace(ON_ML10, learner=RL2(epochs=1)),
}


class Operations(TorchDispatchMode):
    """Counts what is no view."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [returned.alias_info for returned in func._schema.returns]
        self.count += not any(alias is not None and not alias.is_write for alias in aliases)
        return func(*args, **(kwargs or {}))


@dataclass
class Played:
    """Rollouts of one training, or of all that are played together."""

    counting: bool = False
    seconds: float = 0.0
    steps: int = 0
    operations: int = 0

    def __call__(self, *arguments: Any) -> Any:
        began = time.process_time()
        if self.counting:
            with Operations() as operations:
                found = play(*arguments)
            self.operations += operations.count
        else:
            found = play(*arguments)
        self.seconds += time.process_time() - began
        self.steps += found[0].reward.shape[2]
        return found


def quiet(*_: Any) -> Console:
    return Console(file=io.StringIO())


def one_by_one(experiment: Experiment, seeds: int, folder: Path) -> None:
    for seed in range(seeds):
        execute(replace(experiment, seed=seed), folder / f"{seed}", console=quiet())


def in_lockstep(experiment: Experiment, seeds: int, folder: Path) -> None:
    each = [replace(experiment, seed=seed) for seed in range(seeds)]
    lockstep.execute_together(each, [folder / f"{seed}" for seed in range(seeds)], console=quiet())


def measured(
    train: Callable[[Experiment, int, Path], None], experiment: Experiment, seeds: int, *, counting: bool = False
) -> tuple[float, Played]:
    """CPU seconds in all, and of the rollouts."""
    played = Played(counting)
    PLAYER.set(played)
    metarl.lockstep.play = played  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            (Path(folder) / f"{seed}").mkdir()
        began = time.process_time()
        train(experiment, seeds, Path(folder))
        return time.process_time() - began, played


def main(kind: str = "half_cheetah", turns: str = "3") -> None:
    torch.set_num_threads(1)
    lockstep.SeedConsole = quiet  # type: ignore[assignment,misc]
    experiment = KINDS[kind]
    short = replace(experiment, task=replace(experiment.task, horizon=10))
    measured(one_by_one, short, 1)  # what the first use of anything costs
    for seeds in (1, 2, 3, 5):
        _, played = measured(in_lockstep if seeds > 1 else one_by_one, short, seeds, counting=True)
        print(f"{kind}: {played.operations / played.steps:,.1f} operations a step, {seeds} in lockstep", flush=True)
    for _ in range(int(turns)):
        alone, rollouts = measured(one_by_one, experiment, SEEDS)
        joint, common = measured(in_lockstep, experiment, SEEDS)
        print(
            f"{kind}: CPU s of {SEEDS} seeds, rollouts {rollouts.seconds:.2f} one by one, {common.seconds:.2f} in "
            f"lockstep: {rollouts.seconds / common.seconds:.2f}; whole iterations {alone:.2f}, {joint:.2f}: "
            f"{alone / joint:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
