"""One run in several processes (ranks): each has its share of the tasks, and sums and means are of all of them.

In one process every function here gives back what it is given, to the bit. Ranks have equally many tasks: the first
rank the first ones. ``torchrun --nproc-per-node N -m metarl train ...`` starts them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.types import Metrics, Params


@runtime_checkable
class Group(Protocol):
    """What the ranks of a run have in common."""

    rank: int
    size: int

    def total(self, x: Tensor) -> Tensor:
        """The sum over ranks, the same bits on each, in a new tensor."""

    def everyone(self, value: Any) -> list[Any]:
        """What each rank has, plain values or tensors, in the order of ranks."""


class Processes:
    """:class:`Group` of torch's process group."""

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def total(self, x: Tensor) -> Tensor:
        found = x.detach().clone()
        torch.distributed.all_reduce(found)
        return found

    def everyone(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found


_GROUP: ContextVar[Group | None] = ContextVar("ranks", default=None)


@contextmanager
def within(group: Group | None) -> Iterator[None]:
    """Makes this thread of execution a rank of a group."""
    token = _GROUP.set(group)
    try:
        yield
    finally:
        _GROUP.reset(token)


def alone() -> AbstractContextManager[None]:
    """What this rank does by itself, though it is one of several."""
    return within(None)


def started() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joined(device: str) -> Iterator[None]:
    """A rank of the run that ``torchrun`` started: gloo between CPUs, NCCL between GPUs, each rank its own."""
    if device != "cpu":
        torch.cuda.set_device(own_device(device))
    torch.distributed.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        with within(Processes()):
            yield
    finally:
        torch.distributed.destroy_process_group()


def own_device(device: str) -> str:
    """``cuda`` is the GPU of this process' number on its machine."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and started() else device


def size() -> int:
    """Processes of the run."""
    group = _GROUP.get()
    return 1 if group is None else group.size


def rank() -> int:
    """Which of them this is; the first one writes."""
    group = _GROUP.get()
    return 0 if group is None else group.rank


def total(x: Tensor) -> Tensor:
    """The sum over ranks of a tensor, without a derivative."""
    group = _GROUP.get()
    return x if group is None else group.total(x)


def total_params(params: Params) -> Params:
    """The sum over ranks of each parameter, in one message."""
    if size() == 1:
        return params
    flat = total(torch.cat([value.flatten() for value in params.values()]))
    pieces = flat.split([value.numel() for value in params.values()])
    return {name: piece.view_as(value) for (name, value), piece in zip(params.items(), pieces, strict=True)}


def everyone(value: Any) -> list[Any]:
    """What each rank has."""
    group = _GROUP.get()
    return [value] if group is None else group.everyone(value)


def gathered(x: Tensor) -> Tensor:
    """A tensor [own task ...] of all ranks' tasks [task ...]."""
    return x if size() == 1 else torch.cat([part.to(x.device) for part in everyone(x.detach())])


def own(x: Tensor) -> Tensor:
    """This rank's tasks of a tensor of all ranks' [task ...]."""
    return x if size() == 1 else x.chunk(size())[rank()]


def mean_metrics(metrics: Metrics) -> Metrics:
    """Means over the ranks that have a metric: of a kind of task, not all of them may have one."""
    if size() == 1:
        return metrics
    found = everyone(metrics)
    names = dict.fromkeys(name for part in found for name in part)
    lists = {name: [part[name] for part in found if name in part] for name in names}
    return {name: sum(values) / len(values) for name, values in lists.items()}


def of_first(make: Callable[[], Any]) -> Any:
    """What the first rank makes, on all of them."""
    return everyone(make() if rank() == 0 else None)[0]
