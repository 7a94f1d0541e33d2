"""Policies as functions of a parameter dict: ``policy(params, obs) -> distribution``, and with memory."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.networks.distributions import DiagGaussian
from metarl.types import Params

CONTEXT = "context"  # the parameters that alone adapt in CAVIA

MOST_UNITS = 2**14  # of a layer or a memory; the weights between two such layers take 1 GiB
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


@dataclass(frozen=True)
class GaussianMLP:
    """A multilayer perceptron for the mean, and a standard deviation that does not depend on the observation."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity of the hidden layers."""
    init_std: float = 1.0
    """Standard deviation of every action dimension before training."""
    min_std: float = 1e-6
    """The standard deviation never falls below this."""
    context_size: int = 0
    """CAVIA (Zintgraf et al. 2019): this many inputs besides the observation start at 0 in every task and alone adapt;
    0: all parameters adapt."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require_layers("hidden_sizes", self.hidden_sizes)
        require(self, "context_size", at_least=0, at_most=MOST_UNITS)
        if not 0 < self.min_std <= self.init_std:
            raise BadField(f"init_std is {self.init_std}: use a value of at least min_std ({self.min_std}) > 0")

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Glorot-uniform weights and zero biases, on the generator's device."""
        sizes = [spec.obs_dim + self.context_size, *self.hidden_sizes, spec.action_dim]
        params: Params = {}
        for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            bound = math.sqrt(6 / (fan_in + fan_out))
            uniform = torch.rand(fan_in, fan_out, generator=generator, device=generator.device)
            params[f"weight_{layer}"] = (2 * uniform - 1) * bound
            params[f"bias_{layer}"] = torch.zeros(fan_out, device=generator.device)
        params["log_std"] = torch.full((spec.action_dim,), math.log(self.init_std), device=generator.device)
        return params

    def begin(self, weights: Params) -> Params:
        """The policy that has not adapted: weights, and a context of zeros where there is one."""
        if not self.context_size:
            return weights
        return weights | {CONTEXT: weights["log_std"].new_zeros(self.context_size)}

    def adapting(self, params: Params) -> list[str]:
        """The parameters that an inner step moves."""
        return [CONTEXT] if self.context_size else list(params)

    def __call__(self, params: Params, obs: Float[Tensor, "*batch n obs"]) -> DiagGaussian:
        """``params`` is of one policy, or has the leading axes of ``obs`` (one policy a task)."""
        hidden = obs
        if self.context_size:
            context = params[CONTEXT].unsqueeze(-2)
            hidden = torch.cat([obs, context.expand(*obs.shape[:-1], self.context_size)], dim=-1)
        for layer in range(len(self.hidden_sizes) + 1):
            if layer > 0:
                hidden = ACTIVATIONS[self.activation](hidden)
            hidden = hidden @ params[f"weight_{layer}"] + params[f"bias_{layer}"].unsqueeze(-2)
        return DiagGaussian(hidden, params["log_std"].clamp(min=math.log(self.min_std)).unsqueeze(-2))


def require_layers(name: str, sizes: tuple[int, ...]) -> None:
    if any(not 1 <= size <= MOST_UNITS for size in sizes):
        raise BadField(f"{name} is {sizes}: every layer needs at least 1 unit and at most {MOST_UNITS}")
