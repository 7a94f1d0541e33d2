"""What a policy is: two functions of a parameter dict. One's own is a subclass, a frozen dataclass that is registered.

    @metarl.register
    @dataclass(frozen=True)
    class Linear(metarl.Policy):
        def init(self, spec, generator):
            return {"weight": torch.zeros(spec.obs_dim, spec.action_dim, device=generator.device)}

        def __call__(self, params, obs):
            return metarl.Categorical.from_logits(obs @ params["weight"])

Its fields are options of the command line. Everything else below has a default.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import vmap

from metarl.envs.api import EnvSpec
from metarl.extensions import interface
from metarl.networks.distributions import Distribution
from metarl.networks.normalize import learned
from metarl.types import Metrics, Params


@interface
class Policy(ABC):
    """A policy that acts on the observation alone; the inner steps of the MAML family adapt its parameters."""

    @abstractmethod
    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Parameters before training, by name, on the generator's device."""

    @abstractmethod
    def __call__(self, params: Params, obs: Float[Tensor, "*batch obs"]) -> Distribution:
        """The distribution of the action, its leaves [*batch act] or broadcastable to it; twice differentiable."""

    def side_by_side(self, params: Params, obs: Float[Tensor, "*policy env obs"]) -> Distribution:
        """Several policies, whose parameters have the leading axes of ``obs``; faster where a policy broadcasts."""
        function: Any = self
        for _ in range(obs.dim() - 2):
            function = vmap(function)
        return function(params, obs)

    def require_fits(self, spec: EnvSpec) -> None:  # noqa: B027
        """Refuses, by a ``BadField``, tasks that it cannot act in."""

    def begin(self, weights: Params) -> Params:
        """The policy that has not adapted, from what is learned across tasks: the same, unless it adds parameters."""
        return weights

    def adapting(self, params: Params) -> list[str]:
        """The parameters that an inner step moves."""
        return list(learned(params))

    def metrics(self, params: Params) -> Metrics:
        """What is recorded of it after each meta-update, by TensorBoard tag."""
        return {}


@interface
class MemoryPolicy(ABC):
    """A policy that remembers, and its value function; RL² trains it."""

    @abstractmethod
    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Parameters before training, by name, on the generator's device."""

    @abstractmethod
    def inputs(
        self,
        obs: Float[Tensor, "*batch obs"],
        action: Float[Tensor, "*batch act"],
        reward: Float[Tensor, "*batch"],
        ended: Bool[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch in"]:
        """What it is fed: the observation; action, reward and end of episode of the step before, zeros at first."""

    @abstractmethod
    def empty_memory(self, batch: int, device: torch.device) -> Any:
        """What is remembered at the beginning of a trial: a pytree, leaves [batch ...]."""

    @abstractmethod
    def __call__(self, params: Params, inputs: Float[Tensor, "batch time in"], memory: Any) -> Any:
        """:class:`metarl.networks.recurrent.ActorCritic`: distribution and value of each step, memory after the last.

        One call serves a single step of a rollout and a whole trial in the update.
        """

    @abstractmethod
    def without_memory(self) -> "MemoryPolicy":
        """The policy to compare with, that sees the observation alone."""

    def require_fits(self, spec: EnvSpec) -> None:  # noqa: B027
        """Refuses, by a ``BadField``, tasks that it cannot act in."""

    def metrics(self, params: Params) -> Metrics:
        """What is recorded of it after each meta-update, by TensorBoard tag."""
        return {}
