"""Layers as entries of a parameter dict, one stack of them after another: what soft actor-critics are made of."""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.types import Params


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


def dense(params: Params, name: str, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*copies_and_batch out"]:
    """The stack ``name`` with ReLUs between its layers, all of the batch in one matrix product; copies come first."""
    hidden, layer = x.reshape(-1, x.shape[-1]), 0
    while (weight := params.get(f"{name}/weight_{layer}")) is not None:
        if layer > 0:
            hidden = hidden.relu()
        if weight.dim() == 3 and hidden.dim() == 2:
            hidden = hidden.expand(len(weight), *hidden.shape)
        product = torch.addmm if weight.dim() == 2 else torch.baddbmm
        hidden, layer = product(params[f"{name}/bias_{layer}"], hidden, weight), layer + 1
    return hidden.view(*hidden.shape[:-2], *x.shape[:-1], hidden.shape[-1])
