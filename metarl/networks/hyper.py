"""Recurrent hypernetworks: memory emits the weights of a policy that sees the state again (Beck et al. 2022, 2023).

A small policy acts on the observation; what memory says of a step changes each of its layers. With W the layer's own
weights and c the code (memory's output), a layer gives

- ``weights``: (W + M c) x, a hypernetwork: M c are as many numbers as the layer has weights and biases;
- ``film``: (1 + s(c)) W x + t(c), feature-wise linear modulation (Perez et al. 2018), s and t linear;
- ``state``: W x + U c in the first layer, a policy fed state and memory (the papers' RNN+S), no hypernetwork at all.

W stands for the bias of the papers' map and M for its weight, the same function of c with the same gradients. M, s and
t begin at zero and W at an ordinary initialization: that is Bias-HyperInit, a policy that begins as the plain one.
The papers' critic is a second network that is generated likewise; ``value_head`` says whether ours is.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, pad
from torch.utils.checkpoint import checkpoint

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.extensions import register
from metarl.networks.memory import orthogonal
from metarl.networks.mlp import MOST_UNITS, require_layers
from metarl.networks.recurrent import ActorCritic, RecurrentPolicy
from metarl.types import Params

AT_ONCE = 2**22  # generated weights that exist at a time; the way back generates them anew
MOST_GENERATED = 2**20  # weights of a step in one layer


@register
@dataclass(frozen=True)
class HyperPolicy(RecurrentPolicy):
    """A policy whose weights a memory emits, step by step; controls that only modulate it, or feed it the state."""

    conditioning: Literal["weights", "film", "state"] = "weights"
    """How memory changes the policy that acts on the observation: it emits all weights (a hypernetwork), scale and
    shift of each unit (FiLM), or is an input beside the observation (state fed again)."""
    hidden_sizes: tuple[int, ...] = (32,)
    """Units of each tanh layer of the policy that memory changes, and of its value function."""
    code_size: int = 0
    """Rectified units between memory and the map to weights, whose cost is in proportion; 0: memory as it is."""
    value_head: Literal["generated", "plain"] = "generated"
    """Value function: a network of its own, changed by memory likewise, or a linear head on memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layers("hidden_sizes", self.hidden_sizes)
        require(self, "code_size", at_least=0, at_most=MOST_UNITS)

    def require_fits(self, spec: EnvSpec) -> None:
        """Refuses tasks that the policy cannot act in, and a layer of more generated weights than fit."""
        super().require_fits(spec)
        sizes = self._sizes(spec, self._num_outputs(spec))
        largest = max((fan_in + 1) * fan_out for fan_in, fan_out in sizes)
        if self.conditioning == "weights" and largest > MOST_GENERATED:
            raise BadField(
                f"hidden_sizes is {self.hidden_sizes}: a layer has {largest} weights, generated anew each step, "
                f"use at most {MOST_GENERATED}"
            )

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Orthogonal layers, a policy head near zero and a zero value head; maps to changes of them at zero."""
        params = self._begin(spec, generator)
        if self.code_size:
            params["code.weight"] = orthogonal(self.code_size, self.memory_size, generator)
            params["code.bias"] = torch.zeros(self.code_size, device=generator.device)
        params |= self._tower_params("policy", self._sizes(spec, self._num_outputs(spec)), generator, last=0.01)
        if self.value_head == "generated":
            params |= self._tower_params("value", self._sizes(spec, 1), generator, last=0.0)
        else:
            params["value.weight"] = torch.zeros(1, self.memory_size, device=generator.device)
            params["value.bias"] = torch.zeros(1, device=generator.device)
        return params | self._end(spec, generator.device)

    def __call__(self, params: Params, inputs: Float[Tensor, "batch time in"], memory: Any) -> ActorCritic:
        seen = self._observed(params, inputs)
        first = "policy.weight_0" if self.hidden_sizes else "policy.weight"
        state = seen[..., : params[first].shape[1]]
        said, memory = self._remembered(params, seen, memory)
        code = torch.relu(linear(said, params["code.weight"], params["code.bias"])) if self.code_size else said
        head = self._tower(params, "policy", state, code)
        if self.value_head == "generated":
            value = self._tower(params, "value", state, code)
        else:
            value = linear(said, params["value.weight"], params["value.bias"])
        return ActorCritic(self._distribution(params, head), value.squeeze(-1), memory)

    def _sizes(self, spec: EnvSpec, num_outputs: int) -> list[tuple[int, int]]:
        """Inputs and units of each layer."""
        sizes = [self.encoder.num_features(spec), *self.hidden_sizes, num_outputs]
        return list(itertools.pairwise(sizes))

    def _tower_params(
        self, name: str, sizes: list[tuple[int, int]], generator: torch.Generator, *, last: float
    ) -> Params:
        """A network and what memory does to it; ``last``: scale of the first weights of its last layer."""
        device, params = generator.device, Params()
        code_size = self.code_size or self.memory_size
        for layer, (fan_in, fan_out) in zip(self._layers(), sizes, strict=True):
            scale = last if layer == "" else 1.0
            params[f"{name}.weight{layer}"] = scale * orthogonal(fan_out, fan_in, generator)
            params[f"{name}.bias{layer}"] = torch.zeros(fan_out, device=device)
            if self.conditioning == "state":
                if layer == self._layers()[0]:
                    params[f"{name}.code{layer}"] = scale * orthogonal(fan_out, code_size, generator)
                continue
            changes = (fan_in + 1) * fan_out if self.conditioning == "weights" else 2 * fan_out
            params[f"{name}.map{layer}"] = torch.zeros(changes, code_size, device=device)
        return params

    def _layers(self) -> list[str]:
        """What the names of each layer's parameters end in; the last one is a head, as :class:`RecurrentPolicy` has."""
        return [f"_{layer}" for layer in range(len(self.hidden_sizes))] + [""]

    def _tower(
        self, params: Params, name: str, x: Float[Tensor, "batch time obs"], code: Float[Tensor, "batch time code"]
    ) -> Float[Tensor, "batch time out"]:
        for layer in self._layers():
            y = linear(x, params[f"{name}.weight{layer}"], params[f"{name}.bias{layer}"])
            if self.conditioning == "weights":
                y = y + generated(params[f"{name}.map{layer}"], code, x)
            elif self.conditioning == "film":
                scale, shift = linear(code, params[f"{name}.map{layer}"]).chunk(2, dim=-1)
                y = (1 + scale) * y + shift
            elif f"{name}.code{layer}" in params:
                y = y + linear(code, params[f"{name}.code{layer}"])
            x = torch.tanh(y) if layer else y
        return x


def generated(
    weight: Float[Tensor, "weight code"], code: Float[Tensor, "batch time code"], x: Float[Tensor, "batch time in"]
) -> Float[Tensor, "batch time out"]:
    """A linear layer of each step's own weights, and its bias, which are ``weight`` times the step's code.

    At most ``AT_ONCE`` of these weights exist at a time, forward and back, however long the trial: the way back
    generates them a second time.
    """
    num_rows = max(1, AT_ONCE // len(weight))
    codes, inputs = code.flatten(0, 1), pad(x.flatten(0, 1), (0, 1), value=1.0)
    if len(codes) <= num_rows:
        return _generated(weight, codes, inputs).unflatten(0, code.shape[:2])
    pieces = [
        _again(_generated, weight, *pair) for pair in zip(codes.split(num_rows), inputs.split(num_rows), strict=True)
    ]
    return torch.cat(pieces).unflatten(0, code.shape[:2])


def _generated(
    weight: Float[Tensor, "weight code"], code: Float[Tensor, "step code"], x: Float[Tensor, "step in"]
) -> Float[Tensor, "step out"]:
    return torch.bmm(linear(code, weight).unflatten(-1, (-1, x.shape[-1])), x.unsqueeze(-1)).squeeze(-1)


def _again(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """The result, whose way back computes again what lies between."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
