"""How distributions move with parameters, as linear maps whose graphs are built once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from metarl.losses.policy_gradient import mean_over

LinearMap = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


def fisher_product(dist: Any, valid: Tensor, parameters: Sequence[Tensor]) -> LinearMap:
    """v -> Jᵀ F J v: J the derivative of a distribution [task ...] in the parameters, F the Hessian of its mean KL.

    This is the Hessian of the KL from where the parameters are (Gauss-Newton is exact there, since the KL has no slope
    in the distribution), in a third less time than by differentiating the gradient of the KL.
    """
    moving = [leaf for leaf in tree_flatten(dist)[0] if leaf.requires_grad]
    forward, backward = linearized(moving, parameters)
    metric = divergence_hessian(dist, valid)

    def product(v: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return backward(metric(forward(v)))

    return product


def linearized(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[LinearMap, LinearMap]:
    """v -> J v and u -> Jᵀ u, J the derivative of ``outputs`` in ``inputs``; Jᵀ u is linear in u, so that its own
    derivative in u is J."""
    if not outputs:
        return lambda v: (), lambda u: tuple(torch.zeros_like(x) for x in inputs)
    dual = [torch.zeros_like(x).requires_grad_() for x in outputs]
    pulled = torch.autograd.grad(outputs, inputs, dual, create_graph=True, materialize_grads=True)
    used = [i for i, x in enumerate(pulled) if x.requires_grad]

    def forward(v: Sequence[Tensor]) -> tuple[Tensor, ...]:
        along = [v[i] for i in used]
        return torch.autograd.grad([pulled[i] for i in used], dual, along, retain_graph=True, materialize_grads=True)

    def backward(u: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(outputs, inputs, u, retain_graph=True, materialize_grads=True)

    return forward, backward


def divergence_hessian(dist: Any, valid: Tensor) -> LinearMap:
    """Of the KL, its mean over the valid steps of a task and over tasks, in those leaves of a distribution [task ...]
    that have a derivative, where both distributions are ``dist``.

    The mean of both directions has the same Hessian on distributions and, unlike either, no slope in leaves that say
    more than the distribution: normalized log-probabilities are such.
    """
    leaves, spec = tree_flatten(dist)
    moving = [leaf.requires_grad for leaf in leaves]
    here = [leaf.detach() for leaf in leaves]
    there = [leaf.clone().requires_grad_(moves) for leaf, moves in zip(here, moving, strict=True)]

    def of_task(p: Any, q: Any, valid: Tensor) -> Tensor:
        return mean_over((p.kl(q) + q.kl(p)) / 2, valid)

    divergence = vmap(of_task)(tree_unflatten(here, spec), tree_unflatten(there, spec), valid).mean()
    points = [leaf for leaf, moves in zip(there, moving, strict=True) if moves]
    slope = torch.autograd.grad(divergence, points, create_graph=True)

    def product(v: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(slope, points, v, retain_graph=True, materialize_grads=True)

    return product
