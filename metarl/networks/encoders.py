"""Encoders of observations: what stands between an observation and the layers of a policy."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.extensions import interface, register
from metarl.networks.layers import init_products
from metarl.types import Params

PREFIX = "features."  # of an encoder's parameters among a policy's
MOST_NUMBERS = 2**24  # of a picture


@interface
class Encoder(ABC):
    """Features of an observation, as a function of a parameter dict; one's own is a subclass."""

    @abstractmethod
    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Parameters before training, by name, on the generator's device."""

    @abstractmethod
    def num_features(self, spec: EnvSpec) -> int:
        """Length of what it makes of an observation."""

    @abstractmethod
    def __call__(self, params: Params, obs: Float[Tensor, "*batch n obs"]) -> Float[Tensor, "*batch n feature"]:
        """``params`` is of one encoder, or has the leading axes of ``obs`` (one a task); twice differentiable."""

    def require_fits(self, spec: EnvSpec) -> None:  # noqa: B027
        """Refuses, by a ``BadField``, observations that it cannot take."""


def encoder_params(encoder: Encoder, spec: EnvSpec, generator: torch.Generator) -> Params:
    """An encoder's parameters as they are called among a policy's."""
    return {PREFIX + name: value for name, value in encoder.init(spec, generator).items()}


def encode(encoder: Encoder, params: Params, obs: Float[Tensor, "*batch n obs"]) -> Float[Tensor, "*batch n feature"]:
    """The features, by the encoder's part of a policy's parameters."""
    return encoder({name.removeprefix(PREFIX): x for name, x in params.items() if name.startswith(PREFIX)}, obs)


@register
@dataclass(frozen=True)
class Identity(Encoder):
    """The observation as it is."""

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        return {}

    def num_features(self, spec: EnvSpec) -> int:
        return spec.obs_dim

    def __call__(self, params: Params, obs: Float[Tensor, "*batch n obs"]) -> Float[Tensor, "*batch n obs"]:
        return obs


@register
@dataclass(frozen=True)
class CNN(Encoder):
    """Convolutions and a layer on top, each followed by a rectifier; no padding."""

    image: tuple[int, int, int] = (64, 64, 3)
    """Height, width and channels of an observation, flattened in this order; scale its numbers to about 1."""
    filters: tuple[int, ...] = (16, 32)
    """Channels that each convolution makes."""
    kernel: int = 3
    """Height and width of a convolution's window."""
    stride: int = 2
    """Pixels from one window to the next."""
    features: int = 64
    """Units of the layer on top."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "kernel", "stride", "features", at_least=1, at_most=2**14)
        if not (all(size >= 1 for size in self.image) and math.prod(self.image) <= MOST_NUMBERS):
            raise BadField(f"image is {self.image}: use height, width and channels, at most {MOST_NUMBERS} numbers")
        if not self.filters or any(not 1 <= count <= 2**14 for count in self.filters):
            raise BadField(f"filters is {self.filters}: use at least one convolution, each of 1 to {2**14} channels")
        if min(self._sizes()[-1]) < 1:
            raise BadField(f"filters is {self.filters}: too many convolutions for an image of {self.image}, use fewer")

    def _sizes(self) -> list[tuple[int, int]]:
        """Height and width of the picture and of what each convolution makes of it."""
        sizes = [self.image[:2]]
        for _ in self.filters:
            height, width = ((size - self.kernel) // self.stride + 1 for size in sizes[-1])
            sizes.append((height, width))
        return sizes

    def require_fits(self, spec: EnvSpec) -> None:
        if math.prod(self.image) != spec.obs_dim:
            raise BadField(f"image is {self.image}: an observation has {spec.obs_dim} numbers, say which height, width "
                           "and channels they are")  # fmt: skip

    def num_features(self, spec: EnvSpec) -> int:
        return self.features

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Glorot-uniform weights and zero biases."""
        channels = [self.image[2], *self.filters]
        height, width = self._sizes()[-1]
        rows = [self.kernel**2 * count for count in channels[:-1]] + [height * width * channels[-1]]
        return init_products(zip(rows, [*self.filters, self.features], strict=True), generator)

    def __call__(self, params: Params, obs: Float[Tensor, "*batch n obs"]) -> Float[Tensor, "*batch n feature"]:
        x = obs.unflatten(-1, self.image)
        for layer, (height, width) in enumerate(self._sizes()[1:]):
            x = self._windows(x, height, width).flatten(-4, -2)  # [*batch n*height*width window]
            x = (x @ params[f"weight_{layer}"] + params[f"bias_{layer}"].unsqueeze(-2)).relu()
            x = x.unflatten(-2, (obs.shape[-2], height, width))
        top = len(self.filters)
        return (x.flatten(-3) @ params[f"weight_{top}"] + params[f"bias_{top}"].unsqueeze(-2)).relu()

    def _windows(
        self, x: Float[Tensor, "*batch n rows columns channel"], height: int, width: int
    ) -> Float[Tensor, "*batch n height width window"]:
        """What each window sees. A product with these is a convolution whose weights may have leading axes."""
        shifted = []
        for row in range(self.kernel):
            for column in range(self.kernel):
                rows = slice(row, row + self.stride * (height - 1) + 1, self.stride)
                columns = slice(column, column + self.stride * (width - 1) + 1, self.stride)
                shifted.append(x[..., rows, columns, :])
        return torch.cat(shifted, dim=-1)
