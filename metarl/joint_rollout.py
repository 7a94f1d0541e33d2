"""One rollout of several trainings that differ in their seeds (:mod:`metarl.lockstep`), and what each has of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.algorithms.gradient import GradientLearner
from metarl.envs.api import Several
from metarl.envs.lockstep import SeatEnv, together
from metarl.rollout import EARLY_STOP_INTERVAL, Act, may_stop_early, play
from metarl.types import Actor, Previous, TrajectoryBatch


@dataclass(frozen=True)
class Rollout:
    """Arguments of :func:`metarl.rollout.play`."""

    env: SeatEnv
    act: Act
    actor: Actor
    episodes: int
    generator: torch.Generator
    min_steps: int
    trials: bool
    check: Callable[[], None]
    """Raises where the seat is to end."""


Played = tuple[TrajectoryBatch, Actor]


class _NotAsAlone(Exception):
    """What all have played together would have been other numbers for one of them."""


def play_together(rollouts: list[Rollout]) -> list[Played] | list[Played | Exception]:
    """One rollout of all, and what each has of it. Where that fails each plays its own, so that one can fail alone."""
    before = [(one.generator.get_state(), one.env.draws()) for one in rollouts]
    try:
        return _in_one(rollouts)
    except (MemoryError, torch.OutOfMemoryError):  # it is the number of them that fails
        raise
    except Exception:
        for one, (actions, resets) in zip(rollouts, before, strict=True):
            one.generator.set_state(actions)
            one.env.put_back(resets)
    return [_by_itself(one) for one in rollouts]


def _by_itself(rollout: Rollout) -> Played | Exception:
    try:
        return _in_one([rollout])[0]
    except Exception as error:
        return error


def _in_one(rollouts: list[Rollout]) -> list[Played]:
    first, size = rollouts[0], rollouts[0].env.num_tasks
    env = together([one.env for one in rollouts])
    act, actor = _one_actor(rollouts) or _side_by_side(rollouts)
    generator = Several([one.generator for one in rollouts])
    act = checked(act, first.check)
    batch, actor = play(env, act, actor, first.episodes, generator, first.min_steps, first.trials)
    generator.require_unused()
    own = actor if isinstance(actor, list) else _split(actor, size, len(rollouts))
    most = batch.reward.shape[2]
    played = env.steps_played() if may_stop_early(env, first.min_steps) else [most] * len(rollouts)
    lengths = [min(most, EARLY_STOP_INTERVAL * math.ceil(steps / EARLY_STOP_INTERVAL)) for steps in played]
    if not env.spec.terminates and len(set(lengths)) > 1:  # resets on schedule drew for those that were through, too
        raise _NotAsAlone
    env.give_back()
    batches = [
        tree_map(lambda x: x[:, :, :length].contiguous(), part)  # noqa: B023 - a sum's bits depend on the layout
        for part, length in zip(_split(batch, size, len(rollouts)), lengths, strict=True)
    ]
    return list(zip(batches, own, strict=True))


def checked(act: Act, check: Callable[[], None]) -> Act:
    """The same, and a check before every step."""

    def acting(*arguments: Any) -> tuple[Tensor, Any, Actor]:
        check()
        return act(*arguments)

    return acting


def _split(tree: Any, size: int, number: int) -> list[Any]:
    return [tree_map(lambda x: x[i * size : (i + 1) * size], tree) for i in range(number)]  # noqa: B023


def _one_actor(rollouts: list[Rollout]) -> tuple[Act, Actor] | None:
    """All parameters in one actor, where equal learners act by those of each task: no matrix product is of two."""
    actors = [one.actor for one in rollouts]
    methods = [(getattr(one.act, "__func__", None), getattr(one.act, "__self__", None)) for one in rollouts]
    if not isinstance(methods[0][1], GradientLearner) or any(method != methods[0] for method in methods):
        return None  # another learner's may be a dictionary, too, and not of tasks
    return rollouts[0].act, {name: torch.cat([actor[name] for actor in actors]) for name in actors[0]}


def _side_by_side(rollouts: list[Rollout]) -> tuple[Act, Actor]:
    """Actors that act one after the other."""

    def act(actors: list[Actor], obs: Tensor, previous: Previous, generator: Any) -> tuple[Tensor, Any, Actor]:
        seeds = range(len(rollouts))
        own_obs, own_previous = obs.chunk(len(seeds)), _split(previous, len(obs) // len(seeds), len(seeds))
        found = [rollouts[i].act(actors[i], own_obs[i], own_previous[i], generator.parts[i]) for i in seeds]
        actions, dists, actors = (list(part) for part in zip(*found, strict=True))
        return torch.cat(actions), tree_map(lambda *leaves: torch.cat(leaves), *dists), actors

    return act, [one.actor for one in rollouts]
