"""Policies without memory as functions of a parameter dict: ``policy(params, obs) -> distribution``."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.extensions import register
from metarl.networks.distributions import Categorical, DiagGaussian, std_metrics
from metarl.networks.encoders import Encoder, Identity, encode, encoder_params
from metarl.networks.layers import init_products, stacked
from metarl.networks.normalize import initial, normalized
from metarl.networks.protocol import Policy
from metarl.types import Metrics, Params

CONTEXT = "context"  # the parameters that alone adapt in CAVIA

MOST_UNITS = 2**14  # of a layer or a memory; the weights between two such layers take 1 GiB
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


@register
@dataclass(frozen=True)
class MLP(Policy):
    """A multilayer perceptron whose head follows the actions: :class:`GaussianMLP` where they are continuous,
    :class:`CategoricalMLP` where they are a choice."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity of the hidden layers."""
    init_std: float = 1.0
    """Standard deviation of every continuous action dimension before training."""
    min_std: float = 1e-6
    """The standard deviation never falls below this."""
    context_size: int = 0
    """CAVIA (Zintgraf et al. 2019): this many inputs besides the observation start at 0 in every task and alone adapt;
    0: all parameters adapt."""
    normalize_obs: bool = False
    """Standardize observations by their running mean and deviation over the steps of training."""
    encoder: Encoder = field(default_factory=Identity)
    """What the observation passes before the hidden layers."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require_layers("hidden_sizes", self.hidden_sizes)
        require(self, "context_size", at_least=0, at_most=MOST_UNITS)
        if not 0 < self.min_std <= self.init_std:
            raise BadField(f"init_std is {self.init_std}: use a value of at least min_std ({self.min_std}) > 0")

    def require_fits(self, spec: EnvSpec) -> None:
        self.encoder.require_fits(spec)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Glorot-uniform weights and zero biases, on the generator's device."""
        sizes = [self.encoder.num_features(spec) + self.context_size, *self.hidden_sizes, spec.action_dim]
        params = encoder_params(self.encoder, spec, generator) | init_products(itertools.pairwise(sizes), generator)
        if not spec.discrete:
            params["log_std"] = torch.full((spec.action_dim,), math.log(self.init_std), device=generator.device)
        return params | (initial(spec, generator.device) if self.normalize_obs else {})

    def begin(self, weights: Params) -> Params:
        """The policy that has not adapted: weights, and a context of zeros where there is one."""
        if not self.context_size:
            return weights
        return weights | {CONTEXT: weights["weight_0"].new_zeros(self.context_size)}

    def adapting(self, params: Params) -> list[str]:
        return [CONTEXT] if self.context_size else super().adapting(params)

    def __call__(self, params: Params, obs: Float[Tensor, "*batch n obs"]) -> DiagGaussian | Categorical:
        """``params`` is of one policy, or has the leading axes of ``obs`` (one policy a task)."""
        hidden = encode(self.encoder, params, normalized(params, obs))
        if self.context_size:
            context = params[CONTEXT].unsqueeze(-2)
            hidden = torch.cat([hidden, context.expand(*obs.shape[:-1], self.context_size)], dim=-1)
        hidden = stacked(params, "", hidden, ACTIVATIONS[self.activation], lambda x, w, b: x @ w + b.unsqueeze(-2))
        if "log_std" not in params:
            return Categorical.from_logits(hidden)
        return DiagGaussian(hidden, params["log_std"].clamp(min=math.log(self.min_std)).unsqueeze(-2))

    def side_by_side(self, params: Params, obs: Float[Tensor, "*policy env obs"]) -> DiagGaussian | Categorical:
        return self(params, obs)

    def metrics(self, params: Params) -> Metrics:
        return std_metrics(params, self.min_std)


@register
@dataclass(frozen=True)
class GaussianMLP(MLP):
    """Independent normals around a multilayer perceptron, their deviations the same for every observation."""

    def require_fits(self, spec: EnvSpec) -> None:
        super().require_fits(spec)
        if spec.discrete:
            raise BadField(
                "policy is GaussianMLP and the task has discrete actions: use CategoricalMLP, or MLP for both"
            )


@register
@dataclass(frozen=True)
class CategoricalMLP(MLP):
    """Softmax of a multilayer perceptron's logits, for actions that are a choice; it has no standard deviation."""

    def require_fits(self, spec: EnvSpec) -> None:
        super().require_fits(spec)
        if not spec.discrete:
            raise BadField(
                "policy is CategoricalMLP and the task has continuous actions: use GaussianMLP, or MLP for both"
            )


def require_layers(name: str, sizes: tuple[int, ...]) -> None:
    if any(not 1 <= size <= MOST_UNITS for size in sizes):
        raise BadField(f"{name} is {sizes}: every layer needs at least 1 unit and at most {MOST_UNITS}")
