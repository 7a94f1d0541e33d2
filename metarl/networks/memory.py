"""What a policy remembers: cells as functions of a parameter dict. One entry of ``MEMORIES`` is one kind of memory.

A memory maps inputs [batch time in] and its state (a pytree with leaves [batch ...]) to outputs [batch time size] and
the state after the last step, so one call serves a single step of a rollout and a whole trial in the update.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from metarl.networks.fused_gru import FusedGRU, pays
from metarl.networks.layers import glorot
from metarl.types import Params

HEADS = 4  # of attention
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # in the order that torch's kernels take


@runtime_checkable
class Memory(Protocol):
    sees_history: bool
    """Whether the policy is fed the previous action, reward and end of episode, besides the observation."""

    def init(self, num_inputs: int, size: int, generator: torch.Generator) -> Params:
        """Parameters before training, on the generator's device."""

    def empty(self, batch: int, size: int, device: torch.device) -> Any:
        """The state at the beginning of a trial."""

    def __call__(
        self, params: Params, x: Float[Tensor, "batch time in"], state: Any
    ) -> tuple[Float[Tensor, "batch time size"], Any]: ...


class GRU:
    """Gated recurrent unit (Cho et al. 2014), the kernel of ``torch.nn.GRU``."""

    sees_history = True

    def init(self, num_inputs: int, size: int, generator: torch.Generator) -> Params:
        return _recurrent_weights(num_inputs, size, 3, generator)

    def empty(self, batch: int, size: int, device: torch.device) -> Tensor:
        return torch.zeros(batch, size, device=device)

    def __call__(self, params: Params, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        weights = [params[name] for name in WEIGHTS]
        if pays(x, state, weights[0]):
            output = FusedGRU.apply(x.transpose(0, 1), state, *weights)
            return output.transpose(0, 1), output[-1]
        # "train" where cuDNN wants it for its backward; no dropout depends on it
        output, last = torch.gru(x, state.unsqueeze(0), weights, True, 1, 0.0, x.is_cuda, False, True)
        return output, last.squeeze(0)


class LSTM:
    """Long short-term memory (Hochreiter & Schmidhuber 1997), the kernel of ``torch.nn.LSTM``."""

    sees_history = True

    def init(self, num_inputs: int, size: int, generator: torch.Generator) -> Params:
        params = _recurrent_weights(num_inputs, size, 4, generator)
        params["bias_ih"][size : 2 * size] = 1.0  # the forget gate begins open (Jozefowicz et al. 2015)
        return params

    def empty(self, batch: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, size, device=device), torch.zeros(batch, size, device=device)

    def __call__(self, params: Params, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        weights = [params[name] for name in WEIGHTS]
        before = [part.unsqueeze(0) for part in state]
        output, hidden, cell = torch.lstm(x, before, weights, True, 1, 0.0, x.is_cuda, False, True)
        return output, (hidden.squeeze(0), cell.squeeze(0))


class Attention:
    """Causal attention over every step of the trial, after a layer that joins each step with the one before.

    What a step brought (its reward, where it led) arrives as the input of the next one; joined, two inputs make a
    transition, and attention finds the transitions of the present situation. In the spirit of SNAIL (Mishra et al.
    2018), which has more layers. The state grows by a key and a value each step; the first pair is zero, which
    tells how much is remembered at all.
    """

    sees_history = True

    def init(self, num_inputs: int, size: int, generator: torch.Generator) -> Params:
        fan_in = {
            "embed": num_inputs,
            "join": 2 * size,
            "query": size,
            "key": size,
            "value": size,
            "output": 2 * size,
        }
        weights = {f"{name}.weight": orthogonal(size, columns, generator) for name, columns in fan_in.items()}
        biased = ("embed", "join", "output")
        return weights | {f"{name}.bias": torch.zeros(size, device=generator.device) for name in biased}

    def empty(self, batch: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        nothing = torch.zeros(batch, 1, size, device=device)
        return nothing, nothing, nothing

    def __call__(
        self, params: Params, x: Tensor, state: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        last, keys, values = state
        step = torch.tanh(linear(x, params["embed.weight"], params["embed.bias"]))
        before = torch.cat([last, step[:, :-1]], dim=1)
        transition = torch.tanh(linear(torch.cat([step, before], dim=-1), params["join.weight"], params["join.bias"]))
        keys = torch.cat([keys, linear(transition, params["key.weight"])], dim=1)
        values = torch.cat([values, linear(transition, params["value.weight"])], dim=1)
        found = self._attend(linear(step, params["query.weight"]), keys, values)
        output = torch.tanh(
            linear(torch.cat([found, transition], dim=-1), params["output.weight"], params["output.bias"])
        )
        return output, (step[:, -1:], keys, values)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Each step looks at itself and all before: [batch time size] from as many or more keys and values."""
        num_steps, num_keys = query.shape[1], keys.shape[1]
        seen = torch.ones(num_steps, num_keys, dtype=torch.bool, device=query.device).tril(num_keys - num_steps)
        mask = seen if num_steps > 1 else None  # a single step sees everything
        query, keys, values = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (query, keys, values))
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)


class Memoryless:
    """A layer of tanh units that sees the observation alone: RL² without memory is PPO."""

    sees_history = False

    def init(self, num_inputs: int, size: int, generator: torch.Generator) -> Params:
        return {
            "weight": orthogonal(size, num_inputs, generator),
            "bias": torch.zeros(size, device=generator.device),
        }

    def empty(self, batch: int, size: int, device: torch.device) -> tuple[()]:
        return ()

    def __call__(self, params: Params, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return torch.tanh(linear(x, params["weight"], params["bias"])), ()


MEMORIES: dict[str, Memory] = {"gru": GRU(), "lstm": LSTM(), "attention": Attention(), "none": Memoryless()}


def orthogonal(rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
    """A matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2014)."""
    weight = torch.empty(rows, columns, device=generator.device)
    return torch.nn.init.orthogonal_(weight, generator=generator)


def _recurrent_weights(num_inputs: int, size: int, num_gates: int, generator: torch.Generator) -> Params:
    """Glorot-uniform from the inputs, orthogonal from the state, gate by gate; biases zero."""
    return {
        "weight_ih": glorot((num_gates * size, num_inputs), num_inputs, size, generator),
        "weight_hh": torch.cat([orthogonal(size, size, generator) for _ in range(num_gates)]),
        "bias_ih": torch.zeros(num_gates * size, device=generator.device),
        "bias_hh": torch.zeros(num_gates * size, device=generator.device),
    }
