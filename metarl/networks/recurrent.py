"""Policies with memory: encoder, memory, and two heads, for the action distribution and the value."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import linear

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.extensions import register
from metarl.networks.distributions import Categorical, DiagGaussian, Distribution, std_metrics
from metarl.networks.encoders import Encoder, Identity, encode, encoder_params
from metarl.networks.memory import HEADS, MEMORIES, Memory, orthogonal
from metarl.networks.mlp import MOST_UNITS, require_layers
from metarl.networks.normalize import initial, normalized
from metarl.networks.protocol import MemoryPolicy
from metarl.networks.transformer import Transformer
from metarl.types import Metrics, Params


class ActorCritic(NamedTuple):
    """What a policy with memory says of each step, and what it remembers after the last one."""

    dist: Distribution
    """Leaves [batch time act]."""
    value: Float[Tensor, "batch time"]
    """As learned, in units of the learner's choice."""
    memory: Any
    """Leaves [batch ...]."""


@register
@dataclass(frozen=True)
class RecurrentPolicy(MemoryPolicy):
    """Encoder, memory, and two heads on it: action distribution and value (Duan et al. 2016, figure 1)."""

    memory: Literal["gru", "lstm", "attention", "transformer", "none"] = "gru"
    """What remembers: a recurrent cell, attention over all steps of the trial, a gated transformer over a window of
    steps, or nothing (the policy then sees the observation alone)."""
    memory_size: int = 128
    """Units of the memory."""
    encoder_sizes: tuple[int, ...] = ()
    """Units of each tanh layer before the memory."""
    init_std: float = 1.0
    """Standard deviation of every continuous action dimension before training."""
    min_std: float = 1e-6
    """The standard deviation never falls below this."""
    head: Literal["linear", "tanh"] = "linear"
    """Of continuous actions: a linear mean and one standard deviation for all states, or a mean and a log standard
    deviation of every state, both through tanh: in [-1, 1] (the published code of Meta-World+; init_std is 1)."""
    normalize_obs: bool = False
    """Standardize observations by their running mean and deviation over the steps of training."""
    encoder: Encoder = field(default_factory=Identity)
    """What the observation passes before the tanh layers and the memory."""
    memory_layers: int = 2
    """Layers of a transformer."""
    memory_heads: int = 4
    """Heads of a transformer's attention, each of its share of the units."""
    memory_window: int = 128
    """Steps before the present one that a layer of a transformer attends to; older ones are forgotten, and a step costs
    the same however long the trial."""
    memory_gate: Literal["gru", "sum"] = "gru"
    """How a transformer's layers join what they add: by gates that begin nearly shut (GTrXL), or by a sum."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "memory_size", at_least=1, at_most=MOST_UNITS)
        if self.memory == "attention" and self.memory_size % HEADS:
            raise BadField(f"memory_size is {self.memory_size}: use a multiple of attention's {HEADS} heads")
        require(self, "memory_layers", "memory_heads", "memory_window", at_least=1, at_most=MOST_UNITS)
        if self.memory == "transformer" and self.memory_size % self.memory_heads:
            raise BadField(f"memory_size is {self.memory_size}: use a multiple of memory_heads ({self.memory_heads})")
        require_layers("encoder_sizes", self.encoder_sizes)
        if not 0 < self.min_std <= self.init_std:
            raise BadField(f"init_std is {self.init_std}: use a value of at least min_std ({self.min_std}) > 0")

    @property
    def _memory(self) -> Memory:
        if self.memory == "transformer":
            return Transformer(self.memory_layers, self.memory_heads, self.memory_window, self.memory_gate)
        return MEMORIES[self.memory]

    def require_fits(self, spec: EnvSpec) -> None:
        """Refuses tasks that the policy cannot act in.

        Raises:
            BadField: a head of continuous actions, and discrete ones.
        """
        if spec.discrete and self.head != "linear":
            raise BadField(f"head is {self.head!r}: the task has discrete actions, use linear")
        self.encoder.require_fits(spec)

    def without_memory(self) -> "RecurrentPolicy":
        return replace(self, memory="none")

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Orthogonal encoder, a policy head near zero (nearly uniform or centered actions), a zero value head."""
        params = self._begin(spec, generator)
        num_outputs = self._num_outputs(spec)
        params["policy.weight"] = 0.01 * orthogonal(num_outputs, self.memory_size, generator)
        params["policy.bias"] = torch.zeros(num_outputs, device=generator.device)
        params["value.weight"] = torch.zeros(1, self.memory_size, device=generator.device)
        params["value.bias"] = torch.zeros(1, device=generator.device)
        return params | self._end(spec, generator.device)

    def _begin(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """What is below the heads: encoder and memory."""
        self.require_fits(spec)
        memory = self._memory
        num_inputs = self.encoder.num_features(spec)
        num_inputs += spec.action_dim + 2 if memory.sees_history else 0
        params = encoder_params(self.encoder, spec, generator)
        for layer, size in enumerate(self.encoder_sizes):
            params[f"encoder.weight_{layer}"] = orthogonal(size, num_inputs, generator)
            params[f"encoder.bias_{layer}"] = torch.zeros(size, device=generator.device)
            num_inputs = size
        weights = memory.init(num_inputs, self.memory_size, generator)
        return params | {f"memory.{name}": value for name, value in weights.items()}

    def _end(self, spec: EnvSpec, device: torch.device) -> Params:
        """What is no network: the standard deviation, and statistics of observations."""
        std: Params = {}
        if not spec.discrete and self.head == "linear":
            std["log_std"] = torch.full((spec.action_dim,), math.log(self.init_std), device=device)
        return std | (initial(spec, device) if self.normalize_obs else {})

    def _num_outputs(self, spec: EnvSpec) -> int:
        return spec.action_dim * (2 if self.head == "tanh" else 1)

    def inputs(
        self,
        obs: Float[Tensor, "*batch obs"],
        action: Float[Tensor, "*batch act"],
        reward: Float[Tensor, "*batch"],
        ended: Bool[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch in"]:
        """Observation; action, reward and end of episode of the step before (zeros at the first step of a trial)."""
        if not self._memory.sees_history:
            return obs
        return torch.cat([obs, action, reward.unsqueeze(-1), ended.to(obs.dtype).unsqueeze(-1)], dim=-1)

    def empty_memory(self, batch: int, device: torch.device) -> Any:
        """What is remembered at the beginning of a trial."""
        return self._memory.empty(batch, self.memory_size, device)

    def __call__(self, params: Params, inputs: Float[Tensor, "batch time in"], memory: Any) -> ActorCritic:
        x, memory = self._remembered(params, self._observed(params, inputs), memory)
        head = linear(x, params["policy.weight"], params["policy.bias"])
        value = linear(x, params["value.weight"], params["value.bias"])
        return ActorCritic(self._distribution(params, head), value.squeeze(-1), memory)

    def _remembered(
        self, params: Params, x: Float[Tensor, "batch time in"], memory: Any
    ) -> tuple[Float[Tensor, "batch time size"], Any]:
        """What memory says of each step, and the memory after the last one."""
        for layer in range(len(self.encoder_sizes)):
            x = torch.tanh(linear(x, params[f"encoder.weight_{layer}"], params[f"encoder.bias_{layer}"]))
        weights = {name.removeprefix("memory."): value for name, value in params.items() if name.startswith("memory.")}
        return self._memory(weights, x, memory)

    def _distribution(self, params: Params, head: Float[Tensor, "batch time out"]) -> Distribution:
        smallest = math.log(self.min_std)
        if self.head == "tanh":
            mean, log_std = torch.tanh(head).chunk(2, dim=-1)
            return DiagGaussian(mean, log_std.clamp(min=smallest))
        if "log_std" not in params:
            return Categorical.from_logits(head)
        return DiagGaussian(head, params["log_std"].clamp(min=smallest).expand_as(head))

    def _observed(self, params: Params, inputs: Float[Tensor, "batch time in"]) -> Float[Tensor, "batch time out"]:
        """The inputs, their observation normalized and encoded."""
        if not self.normalize_obs and isinstance(self.encoder, Identity):
            return inputs
        num_actions = len(params["policy.bias"]) // (2 if self.head == "tanh" else 1)
        num_history = num_actions + 2 if self._memory.sees_history else 0
        obs, history = inputs.split([inputs.shape[-1] - num_history, num_history], dim=-1)
        return torch.cat([encode(self.encoder, params, normalized(params, obs)), history], dim=-1)

    def metrics(self, params: Params) -> Metrics:
        return std_metrics(params, self.min_std)
