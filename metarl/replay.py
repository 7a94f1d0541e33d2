"""Replay of past experience: rings of rows, one a slot, and a log of all that is added, which checkpoints store.

A slot is what the learner makes it: a training task, or one for all. Rows of a slot lie together and never in another,
the oldest give way, and a slot can begin anew for another task. What a row is, a step or a whole trial, is given by
the shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.envs.fields import BadField

Rows = dict[str, Tensor]
"""Fields of rows by name [slot row ...]."""


class Addition(NamedTuple):
    """What one call added, on the host."""

    slot: Int[Tensor, " slot"]
    start: Int[Tensor, " slot"]
    """Rows that each of these slots was given before."""
    fresh: bool
    """They forgot those."""
    rows: Rows


class Segment(NamedTuple):
    """Additions that lie in a file."""

    file: str
    start: int
    stop: int
    """Which additions, counted from the first one."""
    ends: Int[Tensor, " slot"]
    """Rows that each slot had been given after the last of them that was its; 0 where none was."""


@dataclass
class Log:
    """Where the additions of a replay are, in files or waiting for one; the same for all values of the replay."""

    segments: list[Segment] = field(default_factory=list)
    waiting: list[Addition] = field(default_factory=list)
    stored: int = 0
    """Additions that do not wait any more."""

    @property
    def length(self) -> int:
        """All additions so far."""
        return self.stored + len(self.waiting)


@dataclass(frozen=True, eq=False)
class Replay:
    """A value: adding gives another one. They share memory, so that only the newest can be read and added to; an older
    one is still what a checkpoint may store."""

    rows: Rows
    """The rings [slot capacity ...]."""
    added: Int[Tensor, " slot"]
    """Rows that each slot was ever given; on the host, as the next one."""
    begun: Int[Tensor, " slot"]
    """How many of these were before it last began anew."""
    log: Log = field(default_factory=Log)
    position: int = 0
    """Additions until now: how much of the log is this value's."""

    @property
    def capacity(self) -> int:
        """Rows that a slot has room for."""
        return next(iter(self.rows.values())).shape[1]

    @property
    def device(self) -> torch.device:
        return next(iter(self.rows.values())).device

    @property
    def num_bytes(self) -> int:
        """Of the rings, full or not."""
        return sum(value.numel() * value.element_size() for value in self.rows.values())

    def live(self) -> Int[Tensor, " slot"]:
        """Rows that each slot holds."""
        return (self.added - self.begun).clamp(max=self.capacity)

    def add(self, slot: Int[Tensor, " slot"], rows: Mapping[str, Tensor], *, fresh: bool = False) -> "Replay":
        """With as many new rows in each of some slots.

        Args:
            slot: which, each once.
            rows: by field [slot row ...], at most ``capacity`` of them.
            fresh: these slots forget what they hold, and begin with these.

        Raises:
            ValueError: something was added to this value before.
        """
        if self.position != self.log.length:
            raise ValueError("this is no longer the newest replay: add to the one that add() gave")
        count = next(iter(rows.values())).shape[1]
        if count > self.capacity or rows.keys() != self.rows.keys():
            raise BadField(
                f"rows are {count} of {', '.join(rows)}: use at most {self.capacity} of {', '.join(self.rows)}"
            )
        slot = slot.cpu()
        kept = {name: rows[name].detach().to("cpu", ring.dtype, copy=True) for name, ring in self.rows.items()}
        addition = Addition(slot, self.added[slot], fresh, kept)
        self._write(addition, rows)
        self.log.waiting.append(addition)
        return self._after(addition)

    def sample(
        self,
        slot: Int[Tensor, " slot"],
        count: int,
        generator: torch.Generator,
        *,
        newest: Int[Tensor, " slot"] | None = None,
    ) -> Rows:
        """As many rows of each of some slots, each drawn alike from what the slot holds [slot row ...].

        Args:
            newest: from so many of the rows that each slot was given last; None: from all it holds.

        Raises:
            ValueError: a slot holds nothing.
        """
        slot = slot.cpu()
        live = self.live()[slot]
        if not bool((live > 0).all()):
            raise ValueError(f"slot {int(slot[live == 0][0])} holds nothing yet: add to it before sampling")
        among = live if newest is None else live.minimum(newest.cpu())
        share = torch.rand(len(slot), count, generator=generator, device=generator.device, dtype=torch.float64)
        drawn = (share.to(self.device) * among.unsqueeze(1).to(self.device)).long()
        return self._read(slot, drawn + (live - among).unsqueeze(1).to(self.device), live)

    def newest(self, slot: Int[Tensor, " slot"], count: int) -> Rows:
        """The last rows that each of some slots was given, in order [slot row ...].

        Raises:
            ValueError: a slot holds fewer.
        """
        slot = slot.cpu()
        live = self.live()[slot]
        if not bool((live >= count).all()):
            raise ValueError(f"count is {count}: a slot holds {int(live.min())} rows, use at most so many")
        order = torch.arange(count) + (live - count).unsqueeze(1)
        return self._read(slot, order.to(self.device), live)

    def again(self, additions: list[Addition]) -> "Replay":
        """What it becomes by additions that were stored, which are not logged once more."""
        replay = self
        for addition in additions:
            replay._write(addition, addition.rows)
            replay = replay._after(addition)
        return replay

    def _read(self, slot: Tensor, order: Int[Tensor, "slot row"], live: Tensor) -> Rows:
        """Rows by their age within what a slot holds, the oldest being 0."""
        oldest = (self.added[slot] - live).unsqueeze(1).to(self.device)
        place, slot = (oldest + order) % self.capacity, slot.unsqueeze(1).to(self.device)
        return {name: value[slot, place] for name, value in self.rows.items()}

    def _write(self, addition: Addition, rows: Mapping[str, Tensor]) -> None:
        count = next(iter(rows.values())).shape[1]
        place = (addition.start.unsqueeze(1) + torch.arange(count)) % self.capacity
        slot, place = addition.slot.unsqueeze(1).to(self.device), place.to(self.device)
        for name, ring in self.rows.items():
            ring[slot, place] = rows[name].detach().to(ring)

    def _after(self, addition: Addition) -> "Replay":
        added, begun = self.added.clone(), self.begun.clone()
        added[addition.slot] = addition.start + next(iter(addition.rows.values())).shape[1]
        if addition.fresh:
            begun[addition.slot] = addition.start
        return replace(self, added=added, begun=begun, position=self.position + 1)


def empty_replay(slots: int, capacity: int, row: Mapping[str, Float[Tensor, "..."]]) -> Replay:
    """Room for so many rows in each slot.

    Args:
        row: one row by field, for its shapes, types and device.
    """
    rings = {name: value.new_zeros(slots, capacity, *value.shape) for name, value in row.items()}
    nothing = torch.zeros(slots, dtype=torch.long)
    return Replay(rings, nothing, nothing)
