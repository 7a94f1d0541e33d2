"""Adam as a pure function, and parameters as one vector."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.types import Params

OptimizerState = dict[str, Any]
"""Of torch's Adam; empty before the first step, and always for TRPO."""


def adam_of(
    params: Params, optimizer: OptimizerState, learning_rate: float, **options: Any
) -> tuple[Params, torch.optim.Adam]:
    """Copies of the parameters, and Adam that moves them in place; what it goes on from stays as it is."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    adam = torch.optim.Adam(leaves.values(), lr=learning_rate, **options)
    if optimizer:
        adam.load_state_dict(copy.deepcopy(optimizer))
        adam.param_groups[0]["lr"] = learning_rate
    return leaves, adam


def adam_step(
    meta: Params, gradient: Params, optimizer: OptimizerState, learning_rate: float
) -> tuple[Params, OptimizerState]:
    """One step of Adam; what it starts from stays as it is."""
    leaves, adam = adam_of(meta, optimizer, learning_rate)
    for name, leaf in leaves.items():
        leaf.grad = gradient[name]
    adam.step()
    return {name: leaf.detach() for name, leaf in leaves.items()}, adam.state_dict()


def flatten(params: Params) -> Float[Tensor, " n"]:
    """One float64 vector, in the order of the dict: conjugate gradients lose too much in float32."""
    return torch.cat([value.detach().double().flatten() for value in params.values()])


def unflatten(vector: Float[Tensor, " n"], like: Params) -> Params:
    """The inverse of :func:`flatten`, in the shapes and precision of ``like``."""
    pieces = vector.split([value.numel() for value in like.values()])
    return {
        name: piece.view(value.shape).to(value.dtype) for piece, (name, value) in zip(pieces, like.items(), strict=True)
    }
