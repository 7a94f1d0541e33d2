"""A transformer over a window of a trial, at a constant cost a step however long the trial.

Each layer attends to the step itself and to the ``window`` steps before it, whose keys and values it keeps in a ring:
what is older leaves as new steps come. A deeper layer sees further, through what the keys of the layer below saw:
``layers * window`` steps in all. Distances are relative (Dai et al. 2019, Transformer-XL), so a trial has no end.

Layers are normalized before attention and before the feed-forward part, and what they add passes a gate (Parisotto et
al. 2020, GTrXL): a unit of a GRU that begins nearly shut, so that the policy begins as one without memory. With
the gate ``sum`` they are added, the usual transformer with normalization first.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import layer_norm, linear, pad

from metarl.networks.memory import orthogonal
from metarl.types import Params

FEED_FORWARD = 4  # units of the feed-forward part, in units of the memory
SHUT = 2.0  # bias of a gate before training: it lets through sigma(-2), 12 %
LONGEST_WAVE = 10_000.0  # of the sinusoids that say distances, over 2 pi


class Ring(NamedTuple):
    """What is remembered of the last steps, the latest last; it moves on by a step each step."""

    keys: Float[Tensor, "batch layer window size"]
    values: Float[Tensor, "batch layer window size"]
    filled: Float[Tensor, "batch window"]
    """1 where there was a step, 0 where the trial had not begun."""


@dataclass(frozen=True)
class Transformer:
    """Gated Transformer-XL as a memory (:class:`metarl.networks.memory.Memory`)."""

    sees_history = True

    layers: int
    heads: int
    window: int
    """Steps before the present one that a layer attends to."""
    gate: Literal["gru", "sum"]

    def init(self, num_inputs: int, size: int, generator: torch.Generator) -> Params:
        device = generator.device
        params = {
            "embed.weight": orthogonal(size, num_inputs, generator),
            "embed.bias": torch.zeros(size, device=device),
            **_norm("norm", size, device),
        }
        for layer in range(self.layers):
            weights = {name: orthogonal(size, size, generator) for name in ("query", "key", "value", "output", "where")}
            weights["up"] = orthogonal(FEED_FORWARD * size, size, generator)
            weights["down"] = orthogonal(size, FEED_FORWARD * size, generator)
            params |= {f"{layer}.{name}.weight": weight for name, weight in weights.items()}
            for name, length in (("what", size), ("where", size), ("up", FEED_FORWARD * size), ("down", size)):
                params[f"{layer}.{name}.bias"] = torch.zeros(length, device=device)
            for part in ("attend", "feed"):
                params |= _norm(f"{layer}.{part}.norm", size, device)
                if self.gate == "gru":
                    params |= _gate(f"{layer}.{part}.gate", size, generator)
        return params

    def empty(self, batch: int, size: int, device: torch.device) -> Ring:
        nothing = torch.zeros(batch, self.layers, self.window, size, device=device)
        return Ring(nothing, nothing, torch.zeros(batch, self.window, device=device))

    def __call__(
        self, params: Params, x: Float[Tensor, "batch time in"], state: Ring
    ) -> tuple[Float[Tensor, "batch time size"], Ring]:
        """A window's length at a time, so that memory for scores grows with time and not with its square."""
        x = linear(x, params["embed.weight"], params["embed.bias"])
        pieces = []
        for piece in x.split(self.window, dim=1):
            said, state = self._piece(params, piece, state)
            pieces.append(said)
        return torch.cat(pieces, dim=1), state

    def _piece(
        self, params: Params, x: Float[Tensor, "batch time size"], ring: Ring
    ) -> tuple[Float[Tensor, "batch time size"], Ring]:
        """At most as many steps as a window has, from what is remembered on."""
        filled = torch.cat([ring.filled, torch.ones_like(x[..., 0])], dim=1)
        sees = _within(x.shape[1], self.window, x.device) & (filled > 0).unsqueeze(1)  # [batch query key]
        waves = _sinusoids(self.window, x)
        kept = []
        for layer in range(self.layers):
            own = {name.removeprefix(f"{layer}."): w for name, w in params.items() if name.startswith(f"{layer}.")}
            normed = _normed(own, "attend.norm", x)
            keys = torch.cat([ring.keys[:, layer], linear(normed, own["key.weight"])], dim=1)
            values = torch.cat([ring.values[:, layer], linear(normed, own["value.weight"])], dim=1)
            x = self._joined(own, "attend.gate", x, self._attend(own, normed, keys, values, sees, waves))
            hidden = torch.relu(linear(_normed(own, "feed.norm", x), own["up.weight"], own["up.bias"]))
            x = self._joined(own, "feed.gate", x, linear(hidden, own["down.weight"], own["down.bias"]))
            kept.append((keys[:, -self.window :], values[:, -self.window :]))
        keys, values = (torch.stack(each, dim=1) for each in zip(*kept, strict=True))
        return _normed(params, "norm", x), Ring(keys, values, filled[:, -self.window :])

    def _attend(
        self,
        own: Params,
        x: Float[Tensor, "batch query size"],
        keys: Float[Tensor, "batch key size"],
        values: Float[Tensor, "batch key size"],
        sees: Bool[Tensor, "batch query key"],
        waves: Float[Tensor, "distance size"],
    ) -> Float[Tensor, "batch query size"]:
        """Scores of what a key is and of how far away it is (Dai et al. 2019, section 3.3)."""
        query = linear(x, own["query.weight"])
        far = self._apart(linear(waves, own["where.weight"]))
        what, where = (self._apart(query + own[f"{name}.bias"]) for name in ("what", "where"))
        scores = what @ self._apart(keys).mT + _skewed(where @ far.mT)
        weights = (scores / math.sqrt(far.shape[-1])).masked_fill(~sees.unsqueeze(1), -torch.inf).softmax(-1)
        return linear((weights @ self._apart(values)).transpose(1, 2).flatten(2), own["output.weight"])

    def _apart(self, x: Float[Tensor, "*batch time size"]) -> Float[Tensor, "*batch head time part"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _joined(self, own: Params, name: str, x: Tensor, added: Tensor) -> Float[Tensor, "batch time size"]:
        """The stream and what a part of a layer adds to it."""
        return x + added if self.gate == "sum" else _gated(own, name, x, torch.relu(added))


def _within(num_steps: int, window: int, device: torch.device) -> Bool[Tensor, "query key"]:
    """Whether a key is of the step itself or one of the window before it; the keys begin a window before the steps."""
    distance = window + torch.arange(num_steps, device=device).unsqueeze(1)
    distance = distance - torch.arange(window + num_steps, device=device)
    return (distance >= 0) & (distance <= window)


def _sinusoids(window: int, like: Tensor) -> Float[Tensor, "distance size"]:
    """Distances from ``window`` down to 0, as Vaswani et al. 2017 have positions."""
    size = like.shape[-1]
    distance = torch.arange(window, -1, -1, device=like.device, dtype=like.dtype)
    speed = LONGEST_WAVE ** (-torch.arange(0, size, 2, device=like.device, dtype=like.dtype) / size)
    phase = distance.unsqueeze(1) * speed
    return torch.cat([phase.sin(), phase.cos()], dim=1)[:, :size]


def _skewed(score: Float[Tensor, "batch head query distance"]) -> Float[Tensor, "batch head query key"]:
    """Scores by distance, far ones first, as scores by key: row t is moved t places to the right.

    Rows that are longer by their number, read as rows one shorter, begin one place later each.
    """
    num_steps, num_distances = score.shape[-2:]
    num_keys = num_distances - 1 + num_steps
    longer = pad(score, (0, num_steps)).flatten(-2)
    return longer[..., : num_steps * num_keys].unflatten(-1, (num_steps, num_keys))


def _norm(name: str, size: int, device: torch.device) -> Params:
    return {f"{name}.weight": torch.ones(size, device=device), f"{name}.bias": torch.zeros(size, device=device)}


def _normed(params: Params, name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])


def _gate(name: str, size: int, generator: torch.Generator) -> Params:
    added = torch.cat([orthogonal(size, size, generator) for _ in range(3)])
    stream = torch.cat([orthogonal(size, size, generator) for _ in range(2)])
    return {
        f"{name}.added": added,
        f"{name}.stream": stream,
        f"{name}.reset": orthogonal(size, size, generator),
        f"{name}.bias": torch.full((size,), SHUT, device=generator.device),
    }


def _gated(own: Params, name: str, x: Tensor, y: Tensor) -> Tensor:
    """A GRU's step of the stream x by what is added, y (Parisotto et al. 2020, section 3.2).

    r = s(W_r y + U_r x), z = s(W_z y + U_z x - b), h = tanh(W_h y + U_h (r x)); (1 - z) x + z h.
    """
    r_y, z_y, h_y = linear(y, own[f"{name}.added"]).chunk(3, dim=-1)
    r_x, z_x = linear(x, own[f"{name}.stream"]).chunk(2, dim=-1)
    z = torch.sigmoid(z_y + z_x - own[f"{name}.bias"])
    h = torch.tanh(h_y + linear(torch.sigmoid(r_y + r_x) * x, own[f"{name}.reset"]))
    return (1 - z) * x + z * h
