"""Which slot of a replay is which training task's: off-policy experience by task.

A task is known by its parameter. One that was met before adds to its slot; a new one takes a free slot, or that of the
task that was met longest ago, whose transitions are forgotten. Of what a task's newest visit brought, the part that the
task is to be inferred from comes last in its slot, so that the newest so many rows are a context's.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.replay import Replay, empty_replay
from metarl.types import TrajectoryBatch


class Slots(NamedTuple):
    met: Int[Tensor, " slot"]
    """The number of the last meta-update that the slot's task was part of, from 1 on; 0: the slot is free."""
    recent: Int[Tensor, " slot"]
    """How many of the newest rows a context is drawn from."""
    task: Float[Tensor, " number"]
    """The parameters of the tasks, slot after slot; none before the first update."""

    def parameters(self) -> Float[Tensor, "slot param"]:
        return self.task.view(len(self.met), -1)


class Transition(NamedTuple):
    """A row of the replay; also many, with leading axes."""

    obs: Float[Tensor, "*batch obs"]
    action: Float[Tensor, "*batch act"]
    reward: Float[Tensor, "*batch"]
    next_obs: Float[Tensor, "*batch obs"]
    terminated: Bool[Tensor, "*batch"]


def empty(spec: EnvSpec, slots: int, capacity: int, device: torch.device) -> tuple[Replay, Slots]:
    obs, action = torch.zeros(spec.obs_dim, device=device), torch.zeros(spec.action_dim, device=device)
    number = torch.zeros((), device=device)
    row = Transition(obs, action, number, obs, number.bool())
    nothing = torch.zeros(slots, dtype=torch.int64, device=device)
    return empty_replay(slots, capacity, row._asdict()), Slots(nothing, nothing, torch.zeros(0, device=device))


def remember(
    replay: Replay,
    slots: Slots,
    task: Float[Tensor, "task ..."],
    batches: Sequence[TrajectoryBatch],
    *,
    inferring: int,
    update: int,
) -> tuple[Replay, Slots]:
    """The valid transitions of each task, in its slot.

    Args:
        inferring: contexts are drawn from so many of the batches, from the first on, until the task is met again.
        update: the number of this meta-update, from 1 on.

    Raises:
        BadField: more different tasks than slots, or more transitions of one than a slot has room for.
    """
    ordered = [*batches[inferring:], *batches[:inferring]]
    valid = [batch.valid.flatten(1) for batch in ordered]
    brought = torch.stack([each.any(1) for each in valid]).any(0)
    slots, slot, fresh = _place(slots, task[brought], update)
    where = torch.full_like(brought, -1, dtype=torch.int64).masked_scatter(brought, slot)
    owners = [where.unsqueeze(1).expand_as(each)[each] for each in valid]
    parts = [[x.flatten(1, 2)[each] for x in transitions(batch)] for batch, each in zip(ordered, valid, strict=True)]
    owner = torch.cat(owners)
    order = owner.argsort(stable=True)  # rows of a slot side by side, in the order they came
    fields = [torch.cat(pieces)[order] for pieces in zip(*parts, strict=True)]
    rows = dict(zip(Transition._fields, fields, strict=True))
    count = owner.bincount(minlength=len(slots.met))
    if (most := int(count.max())) > replay.capacity:
        raise BadField(
            f"capacity is {replay.capacity}: use at least what a task brings to a meta-update ({most} steps)"
        )
    for number in count[slot].unique().tolist():
        for anew in (True, False):
            these = ((count == number) & (fresh == anew) & (count > 0)).nonzero().squeeze(1)
            if len(these):
                own = torch.isin(owner[order], these)
                grouped = {name: x[own].unflatten(0, (len(these), number)) for name, x in rows.items()}
                replay = replay.add(these, grouped, fresh=anew)
    context = torch.cat(owners[len(batches) - inferring :]).bincount(minlength=len(count))
    return replay, slots._replace(recent=torch.where(count > 0, context, slots.recent))


def _place(
    slots: Slots, task: Float[Tensor, "task ..."], update: int
) -> tuple[Slots, Int[Tensor, " task"], Bool[Tensor, " slot"]]:
    """A slot for each task, equal ones sharing theirs; and which slots are another task's now."""
    numbers = task.reshape(len(task), math.prod(task.shape[1:])).to(slots.task)
    known = slots.parameters() if len(slots.task) else numbers.new_zeros(len(slots.met), numbers.shape[1])
    different, index = torch.unique(numbers, dim=0, return_inverse=True)
    if len(different) > len(known):
        raise BadField(f"num_slots is {len(known)}: use at least as many as tasks of a meta-batch ({len(different)})")
    same = (different[:, None] == known).all(-1) & (slots.met > 0)
    found, slot = same.any(1), same.int().argmax(1)
    now = slots.met.new_tensor(update)
    met = slots.met.index_put((slot[found],), now)
    new = met.argsort(stable=True)[: int((~found).sum())]  # free ones first, then those met longest ago
    slot[~found] = new
    fresh = torch.zeros_like(met, dtype=torch.bool).index_fill(0, new, True)
    task = known.index_put((slot,), different).flatten()
    return Slots(met.index_put((new,), now), slots.recent, task), slot[index], fresh


def transitions(batch: TrajectoryBatch) -> Transition:
    return Transition(batch.obs, batch.action, batch.reward, batch.next_obs, batch.terminated)


def draw_slots(slots: Slots, count: int, generator: torch.Generator) -> Int[Tensor, " task"]:
    """Slots whose task can be inferred, each as likely."""
    return torch.multinomial((slots.recent > 0).float(), count, replacement=True, generator=generator)
