"""Fully connected layers as functions of a parameter dict, for the parts of larger networks."""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from metarl.types import Params


def init_layers(name: str, sizes: tuple[int, ...], generator: torch.Generator) -> Params:
    """Glorot-uniform weights and zero biases of layers from ``sizes[0]`` inputs to ``sizes[-1]`` outputs."""
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        bound = math.sqrt(6 / (fan_in + fan_out))
        uniform = torch.rand(fan_out, fan_in, generator=generator, device=generator.device)
        params[f"{name}.weight_{layer}"] = (2 * uniform - 1) * bound
        params[f"{name}.bias_{layer}"] = torch.zeros(fan_out, device=generator.device)
    return params


def apply_layers(
    params: Params,
    name: str,
    x: Float[Tensor, "*batch in"],
    activation: Callable[[Tensor], Tensor] = torch.relu,
) -> Float[Tensor, "*batch out"]:
    """The layers ``name`` of ``params``, with the activation between them and none after the last."""
    layer = 0
    while f"{name}.weight_{layer}" in params:
        x = activation(x) if layer else x
        x = linear(x, params[f"{name}.weight_{layer}"], params[f"{name}.bias_{layer}"])
        layer += 1
    return x
