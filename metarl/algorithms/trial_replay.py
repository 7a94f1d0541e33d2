"""Trials in a replay: what VariBAD's encoder and decoders learn from.

A row is a piece of a trial, as many steps as an episode can have; the pieces of a trial follow each other. So a replay
need not know in advance of how many episodes a trial is.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.losses.elbo import Trials
from metarl.networks.belief import Transitions
from metarl.replay import Replay, empty_replay
from metarl.types import TrajectoryBatch

ALL = torch.zeros(1, dtype=torch.long)  # the one slot


def empty_trials(spec: EnvSpec, pieces: int, task_size: int, device: torch.device) -> Replay:
    """Room for so many pieces of trials, with ``task_size`` numbers of each trial's task."""
    step = torch.zeros(spec.horizon, device=device)
    obs, action = step.new_zeros(spec.horizon, spec.obs_dim), step.new_zeros(spec.horizon, spec.action_dim)
    row = {"obs": obs, "action": action, "reward": step, "next_obs": obs, "valid": step.bool()}
    return empty_replay(1, pieces, row | ({"task": step.new_zeros(task_size)} if task_size else {}))


def with_trials(replay: Replay, trials: Trials, pieces: int) -> Replay:
    """The replay with whole trials of so many pieces added, each piece after the one before; the newest that fit."""
    ring = replay.rows["reward"]
    room = replay.capacity // pieces
    if not room:
        raise BadField(f"replay_episodes is {replay.capacity}: use 0, or at least {pieces}, the episodes of a trial")
    rows = {"valid": pad_time(valid_of(trials), ring.shape[2] * pieces)}
    rows |= {name: pad_time(x, ring.shape[2] * pieces) for name, x in trials.steps._asdict().items()}
    rows = {name: x[-room:].unflatten(1, (pieces, -1)).flatten(0, 1) for name, x in rows.items()}
    if "task" in replay.rows:
        rows["task"] = trials.task[-room:].repeat_interleave(pieces, dim=0)
    return replay.add(ALL, {name: x.unsqueeze(0) for name, x in rows.items()})


def some_trials(replay: Replay, pieces: int, count: int, generator: torch.Generator) -> Trials:
    """So many trials of the replay, or all, drawn without replacement."""
    live = int(replay.live()[0])
    whole = live // pieces
    chosen = torch.randperm(whole, generator=generator, device=generator.device)[:count]
    piece = torch.arange(pieces, device=replay.device) + (live - pieces * (1 + chosen.to(replay.device))).unsqueeze(1)
    place = (int(replay.added[0]) - live + piece) % replay.capacity
    rows = {name: ring[0, place] for name, ring in replay.rows.items()}
    task = rows["task"][:, 0] if "task" in rows else rows["reward"].new_zeros(len(place), 0)
    steps = Transitions(*(rows[name].flatten(1, 2) for name in Transitions._fields))
    return shortened(Trials(steps, rows["valid"].flatten(1).sum(1), task))


def observed(batch: TrajectoryBatch) -> Float[Tensor, "task env time obs"]:
    """The observations, without what a learner has put behind them."""
    return batch.obs[..., : batch.next_obs.shape[-1]]


def trials_of(batch: TrajectoryBatch, task: Float[Tensor, "task ..."]) -> Trials:
    """The trials of a meta-batch, one a world, those without a valid step left out."""
    length = batch.valid.sum(-1).flatten()
    there = length > 0
    read = observed(batch), batch.action, batch.reward, batch.next_obs
    steps = Transitions(*(x.flatten(0, 1)[there] for x in read))
    tasks = task.reshape(len(task), -1).to(batch.reward).repeat_interleave(batch.reward.shape[1], dim=0)
    return Trials(steps, length[there], tasks[there])


def episodes_of(batch: TrajectoryBatch) -> int:
    """Episodes of a trial: every whole one has as many; 0 where there is none."""
    ended = (batch.terminated | batch.truncated) & batch.valid
    return int(ended.sum(-1).max())


def valid_of(trials: Trials) -> Tensor:
    """Whether a step lies before the padding, [trial time]."""
    return torch.arange(trials.steps.reward.shape[1], device=trials.length.device) < trials.length.unsqueeze(1)


def shortened(trials: Trials) -> Trials:
    """Without the steps that are padding in all trials."""
    longest = int(trials.length.max())
    return trials._replace(steps=Transitions(*(x[:, :longest] for x in trials.steps)))


def pad_time(x: Tensor, steps: int) -> Tensor:
    """Zeros, or False, after the last step: [trial steps ...]."""
    return pad(x, (0, 0) * (x.dim() - 2) + (0, steps - x.shape[1]))
