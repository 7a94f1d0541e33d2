"""Epochs of gradient steps on one meta-batch, which is how PPO learns, whatever it maximizes."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.losses.optim import OptimizerState, adam_of
from metarl.losses.return_scale import share_of
from metarl.types import Metrics, Params, TrajectoryBatch


class Slope(NamedTuple):
    """What a gradient step takes."""

    gradient: Mapping[str, Tensor | None]
    """By parameter; None of those that have no part in the loss."""
    metrics: Metrics


Slopes = Callable[[Params], Iterator[Slope]]
"""The slopes of one epoch, one after the other, at parameters that move between them."""


class Descent(NamedTuple):
    params: Params
    optimizer: OptimizerState
    metrics: list[Metrics]
    """Of each step, with the norm of its gradient."""

    def means(self) -> Metrics:
        """Of each metric over the steps."""
        return {name: sum(step[name] for step in self.metrics) / len(self.metrics) for name in self.metrics[0]}


def descend(
    params: Params,
    optimizer: OptimizerState,
    slopes: Slopes,
    *,
    epochs: int,
    learning_rate: float,
    eps: float = 1e-8,
    max_grad_norm: float = math.inf,
) -> Descent | None:
    """Steps of Adam down all slopes of every epoch; what it starts from stays as it is. None: one is not finite.

    Args:
        max_grad_norm: longer gradients are shortened to this.
    """
    leaves, adam = adam_of(params, optimizer, learning_rate, eps=eps)
    metrics: list[Metrics] = []
    for _ in range(epochs):
        for slope in slopes(leaves):
            for name, leaf in leaves.items():
                leaf.grad = slope.gradient[name]
            norm = torch.nn.utils.clip_grad_norm_(leaves.values(), max_grad_norm)
            if not norm.isfinite():
                return None
            adam.step()
            metrics.append(slope.metrics | {"train/meta_gradient_norm": norm.item()})
    return Descent({name: leaf.detach() for name, leaf in leaves.items()}, adam.state_dict(), metrics)


def slope_of(
    loss: Float[Tensor, ""], terms: dict[str, Float[Tensor, ""]], leaves: Params, batch: TrajectoryBatch | None = None
) -> Slope:
    """The gradient of a mean over the valid steps of a batch, over those of all ranks; and its terms as metrics. None:
    the loss is the same one in every rank, as one of what a replay holds is."""
    share = None if batch is None else share_of(batch.valid)
    pieces = torch.autograd.grad(loss if share is None else share * loss, list(leaves.values()), allow_unused=True)
    gradient: dict[str, Tensor | None] = dict(zip(leaves, pieces, strict=True))
    if share is not None:
        gradient |= ranks.total_params({name: piece for name, piece in gradient.items() if piece is not None})
        terms = {name: ranks.total(share * term) for name, term in terms.items()}
    return Slope(gradient, {name: term.item() for name, term in terms.items()})


def shares(batch: TrajectoryBatch, count: int, generator: torch.Generator | None = None) -> Iterator[TrajectoryBatch]:
    """At most so many shares of the tasks: each every n-th, for tasks of one kind may lie side by side; or drawn."""
    num_tasks = batch.reward.shape[0]
    count = min(count, num_tasks)
    if generator is not None:
        order = torch.randperm(num_tasks, generator=generator, device=generator.device)
    for share in range(count):
        chosen = slice(share, None, count) if generator is None else order[share::count]
        yield tree_map(lambda x: x[chosen], batch)  # noqa: B023
