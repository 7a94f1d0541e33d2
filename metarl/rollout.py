"""The only function that steps an environment."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.envs.api import TaskEnv, parts_of
from metarl.metrics import without_bad
from metarl.seeds import stream_seed
from metarl.types import Actor, Previous, TrajectoryBatch

Act = Callable[[Actor, Tensor, Previous, torch.Generator], tuple[Tensor, Any, Actor]]

EARLY_STOP_INTERVAL = 16  # steps between looks at whether every world is done; a look makes a GPU wait


@torch.no_grad()
def rollout(
    env: TaskEnv,
    act: Act,
    actor: Actor,
    episodes: int,
    generator: torch.Generator,
    *,
    min_steps: int = 0,
    trials: bool = False,
) -> tuple[TrajectoryBatch, Actor]:
    """Plays ``episodes`` consecutive episodes in every world, from a fresh reset.

    A world that ends its last episode early idles until the others are done; those steps are not ``valid``, so every
    world contributes exactly ``episodes`` episodes and short ones are not over-represented. Only where a task has
    fewer than ``min_steps`` steps by then does a world of it play further whole episodes.

    An episode that diverged (:class:`metarl.envs.api.Step`) is no sample of a return: none of its steps is valid. It
    counts as played, and what the policy saw of it is finite.

    Args:
        act: (actor, obs [task env obs], previous step, generator) -> action, its distribution (a pytree of tensors
            [task env ...] with ``log_prob``), actor.
        actor: what acts first; memory inside it is carried across the episodes.
        generator: draws the actions; where worlds may end early it is at a new place afterwards, wherever they did.
        min_steps: steps that every task shall have at least.
        trials: the episodes of a world are one trial, in which a policy may remember the bad one and credit crosses it:
            then none of its steps is valid.

    Raises:
        FloatingPointError: the policy acted with NaN or infinity.

    Returns:
        The experience [task env time ...], ``advantage`` and ``target`` still zero, and the actor at the end.
    """
    with _one_torch_thread():
        batch, actor = PLAYER.get()(env, act, actor, episodes, generator, min_steps, trials)
    if not batch.action.isfinite().all():  # MuJoCo would take them for 0 and go on
        advice = "start a run with smaller steps (inner_lr, max_kl, learning_rate)"
        raise FloatingPointError(f"the policy's actions are not finite: {advice}")
    return batch, actor


def play(
    env: TaskEnv, act: Act, actor: Actor, episodes: int, generator: torch.Generator, min_steps: int, trials: bool
) -> tuple[TrajectoryBatch, Actor]:
    horizon = env.spec.horizon
    num_steps = max(episodes * horizon, math.ceil(min_steps / env.num_envs) + horizon if min_steps else 0)
    steps: list[dict[str, Any]] = []
    obs = env.reset()
    previous = nothing_before(obs, env.spec.action_dim)
    played = torch.zeros(env.num_tasks, env.num_envs, dtype=torch.int64, device=env.device)  # episodes
    steps_left = torch.full((env.num_tasks, 1), min_steps, device=env.device)
    playing, counted = played < episodes, 0  # steps that steps_left knows of
    can_stop_early = may_stop_early(env, min_steps)
    for t in range(num_steps):
        if can_stop_early and t % EARLY_STOP_INTERVAL == 0 and not playing.any():
            break
        action, dist, actor = act(actor, obs, previous, generator)
        clock = env.clock.clone()
        step = env.step(action)
        steps.append(
            {
                "obs": obs,
                "action": action,
                "reward": step.reward,
                "terminated": step.terminated,
                "truncated": step.truncated,
                "clock": clock,
                "success": step.success,
                "valid": playing,
                "diverged": step.diverged,
                "dist": dist,
                "next_obs": step.next_obs,
            }
        )
        previous = Previous(action, step.reward, step.terminated, step.truncated, step.next_obs)
        ended = step.terminated | step.truncated
        if env.device.type != "cpu" or ended.any():  # to ask a GPU costs more than the rest
            played += ended
            goes_on = ~ended | (played < episodes)
            if min_steps:
                steps_left -= (t + 1 - counted) * playing.sum(1, keepdim=True)
                counted = t + 1
                goes_on |= steps_left > 0
            playing = playing & goes_on
            env.rest(~playing)
        obs = step.obs
    if can_stop_early:  # the last world decides when the others' play ends, not what they are given to play with next
        for part in parts_of(generator):
            part.manual_seed(stream_seed(part.initial_seed(), "next rollout"))
    fields = tree_map(lambda *leaves: torch.stack(leaves, dim=2), *steps)
    zeros = torch.zeros_like(fields["reward"])
    log_prob = fields["dist"].log_prob(fields["action"])
    ended = fields["terminated"] | fields["truncated"]
    fields["valid"] = without_bad(fields["valid"], fields.pop("diverged"), ended, trials=trials)
    return TrajectoryBatch(**fields, log_prob=log_prob, advantage=zeros, target=zeros), actor


PLAYER: ContextVar[Callable[..., tuple[TrajectoryBatch, Actor]]] = ContextVar("player", default=play)
"""What plays the rollouts of this thread."""


def may_stop_early(env: TaskEnv, min_steps: int) -> bool:
    """Whether a rollout ends with its last world, looked for every ``EARLY_STOP_INTERVAL`` steps."""
    return env.spec.terminates or min_steps > 0


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Leaves the cores to the physics: torch's idle threads spin on them (half-cheetah: 1.4 s against 0.9 s)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def nothing_before(obs: Float[Tensor, "task env obs"], action_dim: int) -> Previous:
    """What a policy is fed at the first step of a trial."""
    nothing = torch.zeros(obs.shape[:2], dtype=torch.bool, device=obs.device)
    action = torch.zeros(*obs.shape[:2], action_dim, device=obs.device)
    return Previous(action, torch.zeros(obs.shape[:2], device=obs.device), nothing, nothing, torch.zeros_like(obs))


def after(batch: TrajectoryBatch, step: int) -> Previous:
    """What a policy is fed after a step of experience that all worlds took, as copies."""
    return Previous(*(getattr(batch, name)[:, :, step].clone() for name in Previous._fields))
