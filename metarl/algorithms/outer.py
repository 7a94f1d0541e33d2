"""Outer steps: how meta-parameters move, given the meta-loss as a function of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.algorithms.gradient import Loss
from metarl.envs.fields import BadField, require, require_numbers
from metarl.losses.optim import OptimizerState, flatten, unflatten
from metarl.losses.policy_gradient import clipped_ratio_loss, ratio_loss
from metarl.losses.ppo import Slope, descend
from metarl.losses.trust_region import backtrack, conjugate_gradient
from metarl.types import Metrics, Params


@runtime_checkable
class MetaProblem(Protocol):
    """The meta-loss of one meta-batch: every task adapted, then judged by a loss of its adapted policy."""

    def gradient(self, meta: Params, loss: Loss) -> tuple[Params, float]:
        """The exact gradient over all samples, and the loss."""

    def evaluate(self, meta: Params, loss: Loss) -> tuple[float, float]:
        """The loss, and the mean KL from the adapted policies that acted."""

    def curvature(self, meta: Params, num_samples: int) -> Callable[[Params], Params]:
        """v -> H v, H the Hessian of that KL at ``meta``, through the adaptation, on about ``num_samples``."""


@dataclass(frozen=True)
class TRPO:
    """The longest natural-gradient step within a KL bound on the adapted policies (MAML-TRPO)."""

    max_kl: float = 0.01
    """Bound on the mean KL between adapted policies before and after the step."""
    cg_iterations: int = 10
    """Conjugate gradient iterations."""
    damping: float = 1e-5
    """Added to the diagonal of the curvature."""
    backtrack_ratio: float = 0.8
    """A rejected step is shortened by this factor."""
    max_backtracks: int = 15
    """Steps tried before the update is given up."""
    curvature_samples: int = 10_000
    """Steps of experience that the curvature is estimated on, at least 8 worlds of 8 tasks; loss, KL and gradient see
    all of them."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "max_kl", above=0)
        require(self, "cg_iterations", "max_backtracks", "curvature_samples", at_least=1)
        require(self, "damping", at_least=0)
        if not 0 < self.backtrack_ratio < 1:
            raise BadField(f"backtrack_ratio is {self.backtrack_ratio}: use a factor between 0 and 1")

    def step(
        self, problem: MetaProblem, meta: Params, optimizer: OptimizerState
    ) -> tuple[Params, OptimizerState, Metrics]:
        gradient, loss_before = problem.gradient(meta, ratio_loss)
        flat_gradient = flatten(gradient)
        metrics = {"train/loss_before": loss_before, "train/meta_gradient_norm": flat_gradient.norm().item()}
        if not torch.isfinite(flat_gradient).all():
            return meta, optimizer, metrics | {"train/skipped_updates": 1.0}
        hessian_product = problem.curvature(meta, self.curvature_samples)

        def product(v: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
            return flatten(hessian_product(unflatten(v, meta))) + self.damping * v

        direction = conjugate_gradient(product, flat_gradient, iterations=self.cg_iterations)
        length = (2 * self.max_kl / direction.dot(product(direction)).clamp(min=1e-12)).sqrt()
        if not torch.isfinite(length * direction).all():  # the curvature was not
            return meta, optimizer, metrics | {"train/skipped_updates": 1.0}
        point, loss, kl, backtracks = backtrack(
            lambda candidate: problem.evaluate(unflatten(candidate, meta), ratio_loss),
            flatten(meta),
            length * direction,
            loss_before=loss_before,
            max_kl=self.max_kl,
            ratio=self.backtrack_ratio,
            max_backtracks=self.max_backtracks,
        )
        metrics |= {"train/loss_after": loss, "train/kl": kl, "train/backtracks": float(backtracks)}
        return unflatten(point, meta), optimizer, metrics


@dataclass(frozen=True)
class PPO:
    """Several epochs of Adam on the clipped surrogate of the adapted policies."""

    learning_rate: float = 1e-3
    """Adam's step size."""
    epochs: int = 5
    """Gradient steps on the same meta-batch."""
    clip: float = 0.3
    """PPO clip range epsilon: likelihood ratios are clipped to [1 - clip, 1 + clip]."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "learning_rate", "clip", above=0)
        require(self, "epochs", at_least=1)

    def step(
        self, problem: MetaProblem, meta: Params, optimizer: OptimizerState
    ) -> tuple[Params, OptimizerState, Metrics]:
        loss = partial(clipped_ratio_loss, clip=self.clip)
        return _adam(problem, meta, optimizer, loss, self.learning_rate, self.epochs)


@dataclass(frozen=True)
class Gradient:
    """One step of Adam along the plain meta-gradient."""

    learning_rate: float = 1e-3
    """Adam's step size."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "learning_rate", above=0)

    def step(
        self, problem: MetaProblem, meta: Params, optimizer: OptimizerState
    ) -> tuple[Params, OptimizerState, Metrics]:
        return _adam(problem, meta, optimizer, ratio_loss, self.learning_rate, 1)


def _adam(
    problem: MetaProblem,
    meta: Params,
    optimizer: OptimizerState,
    loss: Loss,
    learning_rate: float,
    epochs: int,
) -> tuple[Params, OptimizerState, Metrics]:
    first = Metrics()

    def slopes(params: Params) -> Iterator[Slope]:
        gradient, loss_value = problem.gradient(params, loss)
        if not first:
            first.update({"train/loss_before": loss_value, "train/meta_gradient_norm": flatten(gradient).norm().item()})
        yield Slope(gradient, {})

    found = descend(meta, optimizer, slopes, epochs=epochs, learning_rate=learning_rate)
    if found is None:
        return meta, optimizer, first | {"train/skipped_updates": 1.0}
    loss_after, kl = problem.evaluate(found.params, loss)
    return found.params, found.optimizer, first | {"train/loss_after": loss_after, "train/kl": kl}
