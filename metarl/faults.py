"""Episodes that were left out since something in them was NaN or infinite: what is said of them, and how many are too
many.

A bad episode is no sample of a return, so nothing sees it (:func:`metarl.rollout.rollout`). The run stops where that is
no exception: where less than half of a batch is left, or of a task that has to adapt by itself, nothing.
"""

from collections.abc import Sequence

from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from metarl.envs.api import FAULTS, TaskEnv
from metarl.envs.registry import TaskDistribution
from metarl.evaluate import MetaTest
from metarl.types import TrajectoryBatch

NAMES = dict(zip(FAULTS, ("state of the physics", "observation", "reward"), strict=True))
ADVICE = {
    "state": "check its model and time step",
    "observation": "check what it observes and how its episodes begin",
    "reward": "check its reward",
}
SHOWN = 4  # numbers; a longer parameter is not written out


class Notices:
    """Says of each field once that episodes are left out for it, and of which task."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[str] = set()

    def __call__(self, env: TaskEnv, tasks: TaskDistribution, sampled: Float[Tensor, "task ..."]) -> None:
        """``sampled`` are the tasks that ``env`` has."""
        found = dict(zip(FAULTS, env.faults.T.tolist(), strict=True))
        for field, counts in found.items():
            if not any(counts) or field in self._said:
                continue
            self._said.add(field)
            count = f"{sum(counts)} episode{'s' if sum(counts) > 1 else ''}"
            self._console.print(
                f"{_name(tasks)}: the {NAMES[field]} was NaN or infinite in {count}{_where(counts, tasks, sampled)}; "
                f"such episodes are left out and counted, and this is said once: {ADVICE[field]}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def require_enough(
    batch: TrajectoryBatch,
    env: TaskEnv,
    tasks: TaskDistribution,
    sampled: Float[Tensor, "task ..."],
    *,
    episodes: int,
    trials: bool,
) -> None:
    """Refuses a batch of which too little is left.

    Args:
        episodes: that each world played.
        trials: they are one trial, which is left out whole; credit is normalized over the meta-batch, so that a task
            without any takes no part in it.

    Raises:
        FloatingPointError: it names the task and the field.
    """
    last = batch.valid & (batch.terminated | batch.truncated)
    found = (batch.valid.any(-1) if trials else last.sum(-1)).sum(1).tolist()
    played = batch.valid.shape[1] * (1 if trials else episodes)
    unit = "trials" if trials else "episodes"
    if 2 * sum(found) < played * len(found):
        left = f"{sum(found)} of {played * len(found)} {unit} of a batch"
    elif not trials and 0 in found:
        left = f"0 of {played} {unit} of a task"
    else:
        return
    raise FloatingPointError(f"{_name(tasks)}: {left} can be used, {_cause(env, tasks, sampled)}")


def check_test(
    result: MetaTest,
    env: TaskEnv,
    tasks: TaskDistribution,
    sampled: Float[Tensor, "task ..."],
    notice: Notices | None = None,
    *,
    labels: Sequence[str] = (),
) -> None:
    """Notices what was left out of a test, and refuses one that at some step says nothing of a kind of task.

    Args:
        labels: the kinds; none: all tasks are one.

    Raises:
        FloatingPointError: it names the task and the field.
    """
    if notice is not None:
        notice(env, tasks, sampled)
    tested = (~result.returns.isnan()).any(2)
    for kind in dict.fromkeys(labels) if labels else [""]:
        of_kind = tested[[label == kind for label in labels]] if labels else tested
        if not of_kind.any(0).all():
            left = f"no episode{f' of {kind}' if kind else ''} can be used"
            raise FloatingPointError(f"{_name(tasks)}: {left}, {_cause(env, tasks, sampled)}")


def _cause(env: TaskEnv, tasks: TaskDistribution, sampled: Tensor) -> str:
    counts = dict(zip(FAULTS, env.faults.T.tolist(), strict=True))
    field = max(counts, key=lambda name: sum(counts[name]))
    return f"the {NAMES[field]} was NaN or infinite{_where(counts[field], tasks, sampled)}: {ADVICE[field]}"


def _where(counts: list[int], tasks: TaskDistribution, sampled: Tensor) -> str:
    """The first task that has any."""
    if not any(counts):
        return ""
    first = next(number for number, count in enumerate(counts) if count)
    if labels := tasks.labels(sampled):
        return f" of {labels[first]}"
    parameter = sampled[first]
    return f" of task {parameter.tolist()}" if parameter.numel() <= SHOWN else f" of task {first} of the batch"


def _name(tasks: TaskDistribution) -> str:
    return tasks.name or type(tasks).__name__
