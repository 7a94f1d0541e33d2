"""A policy of one's own, complete in this file: a Gaussian whose standard deviation depends on the observation, too.

So an inner step can make a policy bolder in one place and surer in another; GaussianMLP has one deviation everywhere.

    metarl train navigation --learner maml --policy two-heads --code experiments/own_network.py --name heads
    metarl evaluate runs/heads --code experiments/own_network.py
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl import DiagGaussian, Policy, register
from metarl.envs import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.types import Metrics, Params

LOG_STD = (-5.0, 1.0)  # from and to


@register
@dataclass(frozen=True)
class TwoHeads(Policy):
    """Two tanh layers, and a head each for mean and standard deviation."""

    width: int = 64
    """Units of both layers."""
    first_std: float = 1.0
    """Standard deviation of every action dimension before training."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "width", "first_std", above=0)

    def require_fits(self, spec: EnvSpec) -> None:
        if spec.discrete:
            raise BadField("policy is TwoHeads and the task has discrete actions: use CategoricalMLP")

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        params: Params = {}
        sizes = {"below": (spec.obs_dim, self.width), "above": (self.width, self.width)}
        sizes |= {"mean": (self.width, spec.action_dim), "log_std": (self.width, spec.action_dim)}
        for name, (rows, columns) in sizes.items():
            noise = torch.randn(rows, columns, generator=generator, device=generator.device)
            params[f"{name}.weight"] = noise / math.sqrt(rows) * (0.01 if name == "log_std" else 1.0)
            params[f"{name}.bias"] = torch.zeros(columns, device=generator.device)
        params["log_std.bias"] += math.log(self.first_std)
        return params

    def __call__(self, params: Params, obs: Float[Tensor, "*batch obs"]) -> DiagGaussian:
        def layer(name: str, x: Tensor) -> Tensor:
            return x @ params[f"{name}.weight"] + params[f"{name}.bias"]

        hidden = torch.tanh(layer("above", torch.tanh(layer("below", obs))))
        return DiagGaussian(layer("mean", hidden), layer("log_std", hidden).clamp(*LOG_STD))

    def metrics(self, params: Params) -> Metrics:
        return {"train/policy_std": params["log_std.bias"].exp().mean().item()}
