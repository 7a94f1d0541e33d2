"""What callers from other libraries hand over: tasks and actions in numpy, checked once and turned into tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, UnknownOption
from metarl.envs.registry import TaskDistribution

SHOWN = 8  # numbers; a longer parameter is not written out in an error

Numbers = float | int | Sequence[Any] | NDArray[Any] | np.generic | Tensor


def example(tasks: TaskDistribution) -> Tensor:
    """Some task parameter [...]."""
    return tasks.sample(1, torch.Generator().manual_seed(0))[0]


def asked_task(options: dict[str, Any] | None) -> Numbers | None:
    """The task that the options of a reset ask for."""
    rest = set(options or ()) - {"task"}
    if rest:
        raise UnknownOption(f"options has {', '.join(sorted(map(str, rest)))}: reset knows the option task alone")
    return (options or {}).get("task")


def parameters(tasks: TaskDistribution, task: Numbers, num_tasks: int) -> Tensor:
    """``task`` [task, ...] in the distribution's precision, or the one task [...] as many times.

    Raises:
        BadField: another shape, or a number that is not finite.
    """
    like = example(tasks)
    needed = f"{tasks.name} needs {'a number' if like.ndim == 0 else f'finite numbers of shape {tuple(like.shape)}'}"
    if like.numel() <= SHOWN:
        needed += f", such as {np.round(like.numpy(), 3).tolist()}"
    try:
        given = torch.as_tensor(task if isinstance(task, Tensor) else np.asarray(task, dtype=np.float64)).to(like)
    except (TypeError, ValueError) as error:
        raise BadField(f"task is {task!r}: {needed}") from error
    if given.shape == like.shape:
        given = given.expand(num_tasks, *like.shape)
    if given.shape != (num_tasks, *like.shape):
        raise BadField(f"task has shape {tuple(given.shape)}: {needed}, or {num_tasks} of them")
    if not given.isfinite().all():
        raise BadField(f"task is {given.tolist()}: {needed}")
    return given.clone()


def as_actions(spec: EnvSpec, action: Any, shape: tuple[int, ...] | None, num_tasks: int, num_envs: int) -> Tensor:
    """Actions of Gymnasium, of the ``shape`` of their space, as the batched environment takes them [task, env, act].

    Raises:
        BadField: another shape, an index that is none, or what is no number; Gymnasium's own raise a ValueError, too.
    """
    try:
        given = np.asarray(action)
    except ValueError as error:  # rows of several lengths
        raise BadField(f"action is {action!r}: use an array of shape {shape}") from error
    if given.shape != shape:
        raise BadField(f"action has shape {given.shape}: use {shape}")
    if spec.discrete:
        if given.dtype.kind not in "iub" or not ((given >= 0) & (given < spec.action_dim)).all():
            raise BadField(f"action is {given.tolist()}: use whole numbers from 0 to {spec.action_dim - 1}")
        chosen = torch.nn.functional.one_hot(torch.from_numpy(given.astype(np.int64)), spec.action_dim)
    elif given.dtype.kind not in "iufb" or np.isnan(given).any():
        raise BadField(f"action is {given.tolist()}: use numbers")
    else:
        chosen = torch.from_numpy(given.astype(np.float64))  # of any byte order and stride
    return chosen.float().reshape(num_tasks, num_envs, spec.action_dim)
