"""Stacks of fully connected layers as functions of a parameter dict, for the parts of larger networks."""

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


def dense_params(
    name: str, sizes: tuple[int, ...], generator: torch.Generator, *, copies: tuple[int, ...] = (), last: float = 1.0
) -> Params:
    """Weights uniform in +-1 / sqrt(fan-in) and zero biases, of independent stacks ``copies``.

    Args:
        sizes: numbers of inputs, of each hidden layer's units and of outputs.
        last: what the last layer's weights are multiplied by.
    """
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        uniform = torch.rand(*copies, fan_in, fan_out, generator=generator, device=generator.device)
        scale = last if layer == len(sizes) - 2 else 1.0
        params[f"{name}/weight_{layer}"] = scale * (2 * uniform - 1) / math.sqrt(fan_in)
        params[f"{name}/bias_{layer}"] = torch.zeros(*copies, 1, fan_out, device=generator.device)
    return params


def stacked(
    params: Params,
    prefix: str,
    x: Tensor,
    activation: Callable[[Tensor], Tensor],
    product: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """The layers ``weight_0``, ``bias_0`` ... behind a prefix, the activation between them and none after the last.

    Args:
        product: what a layer makes of its inputs, by its weight and bias.
    """
    layer = 0
    while (weight := params.get(f"{prefix}weight_{layer}")) is not None:
        x = activation(x) if layer else x
        x = product(x, weight, params[f"{prefix}bias_{layer}"])
        layer += 1
    return x


def apply_layers(
    params: Params, name: str, x: Float[Tensor, "*batch in"], activation: Callable[[Tensor], Tensor] = torch.relu
) -> Float[Tensor, "*batch out"]:
    """Of :func:`init_layers`."""
    return stacked(params, f"{name}.", x, activation, linear)


def dense(params: Params, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*copies_and_batch out"]:
    """Of :func:`dense_params`, with ReLUs, all of the batch in one matrix product; copies come first."""

    def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if weight.dim() == 2:
            return torch.addmm(bias, x, weight)
        return torch.baddbmm(bias, x.expand(len(weight), *x.shape[-2:]), weight)

    hidden = stacked(params, f"{name}/", x.reshape(-1, x.shape[-1]), torch.relu, product)
    return hidden.view(*hidden.shape[:-2], *x.shape[:-1], hidden.shape[-1])
