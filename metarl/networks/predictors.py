"""Networks that predict labels, as functions of a parameter dict of one task: ``network(params, x) -> prediction``."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from metarl.envs.fields import require, require_numbers
from metarl.networks.layers import glorot, init_products
from metarl.networks.mlp import ACTIVATIONS, MOST_UNITS, require_layers
from metarl.types import Params

HEAD = ("weight_head", "bias_head")  # the last layer


def head(num_features: int, outputs: int, generator: torch.Generator) -> Params:
    """Parameters of a last layer."""
    weight = glorot((num_features, outputs), num_features, outputs, generator)
    return dict(zip(HEAD, (weight, torch.zeros(outputs, device=generator.device)), strict=True))


def linear_head(params: Params, features: Float[Tensor, "n feature"]) -> Float[Tensor, "n out"]:
    return features @ params["weight_head"] + params["bias_head"]


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron over the flattened input."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer."""
    activation: Literal["tanh", "relu"] = "relu"
    """Nonlinearity of the hidden layers."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require_layers("hidden_sizes", self.hidden_sizes)

    def init(self, shape: tuple[int, ...], outputs: int, generator: torch.Generator) -> Params:
        """Glorot-uniform weights and zero biases, on the generator's device."""
        sizes = [math.prod(shape), *self.hidden_sizes]
        return init_products(itertools.pairwise(sizes), generator) | head(sizes[-1], outputs, generator)

    def features(self, params: Params, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n feature"]:
        """What the last layer sees."""
        hidden = x.flatten(1)
        for layer in range(len(self.hidden_sizes)):
            hidden = ACTIVATIONS[self.activation](hidden @ params[f"weight_{layer}"] + params[f"bias_{layer}"])
        return hidden

    def __call__(self, params: Params, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n out"]:
        return linear_head(params, self.features(params, x))


@dataclass(frozen=True)
class ConvNet:
    """Blocks of a convolution with stride 2, normalization and ReLU, as Vinyals et al. 2016 made them for Omniglot.

    Each example is normalized over its own channels and places (a group norm of one group). Batch normalization, which
    published results use, would let the query examples of an episode tell about each other.
    """

    filters: int = 32
    """Channels of each block."""
    blocks: int = 4
    """Blocks; each halves height and width."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "filters", at_least=1, at_most=MOST_UNITS)
        require(self, "blocks", at_least=1, at_most=16)

    def init(self, shape: tuple[int, ...], outputs: int, generator: torch.Generator) -> Params:
        """Glorot-uniform weights, zero biases and gains of 1, on the generator's device."""
        channels, height, width = shape
        params: Params = {}
        for block in range(self.blocks):
            weight = glorot((self.filters, channels, 3, 3), 9 * channels, 9 * self.filters, generator)
            params[f"weight_{block}"] = weight
            params[f"gain_{block}"] = torch.ones(self.filters, device=generator.device)
            params[f"bias_{block}"] = torch.zeros(self.filters, device=generator.device)
            channels, height, width = self.filters, (height + 1) // 2, (width + 1) // 2
        return params | head(channels * height * width, outputs, generator)

    def features(self, params: Params, x: Float[Tensor, "n channel height width"]) -> Float[Tensor, "n feature"]:
        """What the last layer sees."""
        for block in range(self.blocks):
            x = conv2d(x, params[f"weight_{block}"], stride=2, padding=1)
            mean = x.mean((1, 2, 3), keepdim=True)
            x = (x - mean) * ((x - mean).square().mean((1, 2, 3), keepdim=True) + 1e-5).rsqrt()
            x = torch.relu(x * params[f"gain_{block}"].view(-1, 1, 1) + params[f"bias_{block}"].view(-1, 1, 1))
        return x.flatten(1)

    def __call__(self, params: Params, x: Float[Tensor, "n channel height width"]) -> Float[Tensor, "n out"]:
        return linear_head(params, self.features(params, x))
