"""Fully connected layers as functions of a parameter dict, for the parts of larger networks."""

import itertools
import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from metarl.types import Params


def glorot(shape: tuple[int, ...], fan_in: int, fan_out: int, generator: torch.Generator) -> Tensor:
    """Uniform weights of variance 2 / (fan_in + fan_out), on the generator's device."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    return (2 * torch.rand(shape, generator=generator, device=generator.device) - 1) * bound


def init_products(fans: Iterable[tuple[int, int]], generator: torch.Generator) -> Params:
    """Glorot-uniform weights [in out] and zero biases, for layers x @ weight + bias: those may get leading axes."""
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(fans):
        params[f"weight_{layer}"] = glorot((fan_in, fan_out), fan_in, fan_out, generator)
        params[f"bias_{layer}"] = torch.zeros(fan_out, device=generator.device)
    return params


def init_layers(name: str, sizes: tuple[int, ...], generator: torch.Generator) -> Params:
    """Glorot-uniform weights and zero biases of layers from ``sizes[0]`` inputs to ``sizes[-1]`` outputs."""
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        params[f"{name}.weight_{layer}"] = glorot((fan_out, fan_in), fan_in, fan_out, generator)
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
