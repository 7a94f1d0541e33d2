"""A tiny finished run, for tests of what becomes of it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO
from metarl.envs.small.navigation import Navigation
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.session import execute

TINY = Experiment(
    task=Navigation(horizon=5),
    learner=MAML(outer=PPO()),
    num_tasks=2,
    num_envs=2,
    episodes=2,
    iterations=2,
    eval_interval=0,
    checkpoint_interval=1,
    num_threads=1,
)


def run_quietly(experiment: Experiment, run: Path) -> str:
    console = Console(file=io.StringIO(), width=400)
    assert execute(experiment, run, console=console) == 0
    return console.file.getvalue()  # type: ignore[attr-defined]


def newest(run: Path) -> Path:
    return run / checkpoint.DIRECTORY / "iteration_00000002.ckpt"


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the newest checkpoint, with a right digest."""
    content = checkpoint.load(newest(run))
    change(content)
    checkpoint.save(newest(run), content)
