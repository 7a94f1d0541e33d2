"""A ring of transitions for each training task, in one tensor on the device of the learner.

A task is known by its parameter. One that was met before adds to its ring; a new one takes a free slot, or that of the
task that was met longest ago, whose transitions are gone then. Only :func:`add` writes, and nothing but what it is
given: transitions of one task never stand in the slot of another.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.types import TrajectoryBatch


class Replay(NamedTuple):
    rows: Float[Tensor, "slot capacity row"]
    """Observation, action, reward, next observation and whether the MDP ended, side by side."""
    added: Int[Tensor, " slot"]
    """Transitions that a slot's task ever added; the next one goes to this place, modulo the capacity."""
    recent: Int[Tensor, "slot 2"]
    """Where the newest transitions that tasks are inferred from begin, in the count of ``added``, and their number."""
    met: Int[Tensor, " slot"]
    """The number of the last meta-update that the slot's task was part of, from 1 on; 0: the slot is free."""
    task: Float[Tensor, "slot param"]
    """Its parameter, flattened; of 0 numbers before the first update."""


class Step(NamedTuple):
    """Transitions as the networks take them."""

    obs: Float[Tensor, "*batch obs"]
    action: Float[Tensor, "*batch act"]
    reward: Float[Tensor, "*batch"]
    next_obs: Float[Tensor, "*batch obs"]
    terminated: Bool[Tensor, "*batch"]


def empty(spec: EnvSpec, slots: int, capacity: int, device: torch.device) -> Replay:
    row = 2 * spec.obs_dim + spec.action_dim + 2
    counts = torch.zeros(slots, dtype=torch.int64, device=device)
    return Replay(
        torch.zeros(slots, capacity, row, device=device),
        counts,
        torch.zeros(slots, 2, dtype=torch.int64, device=device),
        counts.clone(),
        torch.zeros(slots, 0, device=device),
    )


def place(replay: Replay, task: Float[Tensor, "task ..."], update: int) -> tuple[Replay, Int[Tensor, " task"]]:
    """A slot for each of ``task``, equal ones sharing theirs; those of new tasks are emptied.

    Args:
        update: the number of this meta-update, from 1 on.

    Raises:
        BadField: there are more different tasks than slots.
    """
    rows = task.reshape(len(task), -1).to(replay.rows)
    known = replay.task if replay.task.shape[1] else rows.new_zeros(len(replay.met), rows.shape[1])
    different, index = torch.unique(rows, dim=0, return_inverse=True)
    if len(different) > len(known):
        raise BadField(f"num_slots is {len(known)}: use at least as many as tasks of a meta-batch ({len(different)})")
    same = (different[:, None] == known).all(-1) & (replay.met > 0)
    found, slot = same.any(1), same.int().argmax(1)
    met = replay.met.index_put((slot[found],), replay.met.new_tensor(update))
    fresh = met.argsort(stable=True)[: int((~found).sum())]  # free ones first, then those met longest ago
    slot[~found] = fresh
    zero = replay.added.new_tensor(0)
    placed = replay._replace(
        added=replay.added.index_put((fresh,), zero),
        recent=replay.recent.index_put((fresh,), zero),
        met=met.index_put((fresh,), met.new_tensor(update)),
        task=known.index_put((slot,), different),
    )
    return placed, slot[index]


def add(replay: Replay, slot: Int[Tensor, " task"], experience: list[TrajectoryBatch], inferring: int) -> Replay:
    """The valid transitions of each task in its slot, batch after batch.

    Args:
        inferring: of so many batches, from the first on, tasks are inferred until they are met again.

    Raises:
        BadField: a slot does not hold what one task brought.
    """
    rows, added = replay.rows.clone(), replay.added
    begin, recent = added, replay.recent
    for number, batch in enumerate(experience):
        valid = batch.valid.flatten(1)
        count = valid.sum(1)
        shared = slot[:, None] == slot  # equal tasks of a meta-batch add one after the other
        before = (shared.tril(-1) * count).sum(1)
        rank = before.unsqueeze(1) + valid.cumsum(1) - 1
        where = (added[slot].unsqueeze(1) + rank) % rows.shape[1]
        rows[slot.unsqueeze(1).expand_as(where)[valid], where[valid]] = rows_of(batch)[valid]
        added = added.index_add(0, slot, count)
        if number < inferring:
            recent = torch.stack([begin, added - begin], dim=1)
    if (most := int((added - begin).max())) > rows.shape[1]:
        raise BadField(f"capacity is {rows.shape[1]}: use at least what a task brings to a meta-update ({most} steps)")
    recent = torch.where(recent[:, 1:] > 0, recent, replay.recent)
    start = recent[:, 0].maximum(added - rows.shape[1])  # what the ring still holds
    recent = torch.stack([start, (recent.sum(1) - start).clamp(min=0)], dim=1)
    return replay._replace(rows=rows, added=added, recent=recent)


def rows_of(batch: TrajectoryBatch) -> Float[Tensor, "task step row"]:
    reward, ended = batch.reward.unsqueeze(-1), batch.terminated.unsqueeze(-1).float()
    return torch.cat([batch.obs, batch.action, reward, batch.next_obs, ended], dim=-1).flatten(1, 2)


def draw_slots(replay: Replay, num_tasks: int, generator: torch.Generator) -> Int[Tensor, " task"]:
    """Slots of tasks with experience, each as likely."""
    filled = ((replay.added > 0) & (replay.recent[:, 1] > 0)).float()
    return torch.multinomial(filled, num_tasks, replacement=True, generator=generator)


def draw_any(replay: Replay, slot: Int[Tensor, " task"], count: int, generator: torch.Generator) -> Tensor:
    """Rows [task, count, row] of all that the slots hold, uniform, with replacement."""
    held = replay.added[slot].clamp(max=replay.rows.shape[1])
    return replay.rows[slot.unsqueeze(1), _uniform(held, count, generator)]


def draw_recent(replay: Replay, slot: Int[Tensor, " task"], count: int, generator: torch.Generator) -> Tensor:
    """Rows [task, count, row] of the newest transitions that tasks are inferred from."""
    begin, number = replay.recent[slot].unbind(1)
    place = (begin.unsqueeze(1) + _uniform(number, count, generator)) % replay.rows.shape[1]
    return replay.rows[slot.unsqueeze(1), place]


def _uniform(number: Int[Tensor, " task"], count: int, generator: torch.Generator) -> Int[Tensor, "task count"]:
    """``count`` whole numbers from 0 to below each of ``number``."""
    uniform = torch.rand(len(number), count, generator=generator, device=number.device, dtype=torch.float64)
    return (uniform * number.unsqueeze(1)).long()


def step_of(rows: Float[Tensor, "*batch row"], obs_dim: int) -> Step:
    action_dim = rows.shape[-1] - 2 * obs_dim - 2
    obs, action, reward, next_obs, ended = rows.split([obs_dim, action_dim, 1, obs_dim, 1], dim=-1)
    return Step(obs, action, reward.squeeze(-1), next_obs, ended.squeeze(-1) > 0)
