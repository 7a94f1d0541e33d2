"""The rollout as it was until each step on the CPU was asked whether anything ended in it: every flag in every step."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.envs.api import Step
from metarl.envs.mujoco_task import MujocoWorlds
from metarl.envs.physics.cpu import CpuPhysics
from metarl.envs.soundness import sound
from metarl.envs.worlds import BatchedTaskEnv, Outcome
from metarl.metrics import without_bad
from metarl.rollout import Act, _one_torch_thread, nothing_before
from metarl.types import Actor, Previous, TrajectoryBatch


class EarlierPhysics(CpuPhysics):
    def step(self, substeps: int, awake: Tensor | None = None) -> Tensor:
        time = self.bind("time")
        before = time.clone()
        self._batch.step(ids=None if awake is None else awake.numpy(), nstep=substeps, stage=self._stage)
        failed = ~(time > before)
        return failed if awake is None else failed & awake


class EarlierWorlds(MujocoWorlds):
    def step(self, action: Tensor) -> Outcome:
        physics, task = self.physics, self.task
        action = action.to(self._ctrl)
        before = task.measure(physics)
        self._ctrl.copy_(action * self._ctrl_scale + self._ctrl_center)
        diverged = physics.step(task.frame_skip, self._awake)
        reward = task.reward(physics, before, action, self._task_parameter)
        return Outcome(
            reward.masked_fill(diverged, 0.0).to(self._device, self._dtype),
            task.terminated(physics, self._task_parameter) & ~diverged,
            task.success(physics, self._task_parameter),
            diverged,
        )


class EarlierTaskEnv(BatchedTaskEnv):
    def step(self, action: Tensor) -> Step:
        outcome = self.worlds.step(action.flatten(0, 1).clamp(-1.0, 1.0))
        self.clock += 1
        self._steps += 1
        next_obs, reward = by_task(self, self.worlds.observe()), by_task(self, outcome.reward)
        unseen, unpaid = ~sound(next_obs).all(-1) | self._spoiled, ~sound(reward)
        terminated, failed, success = (
            by_task(self, x) for x in (outcome.terminated, outcome.diverged, outcome.success)
        )
        diverged = failed | unseen | unpaid
        truncated = (self.clock >= self.spec.horizon) | diverged
        ended = terminated | truncated
        obs = next_obs
        if self._on_schedule() or ended.any():
            found = torch.stack([failed, unseen & ~failed, unpaid & ~unseen & ~failed], dim=2)
            found = (found & ~self._resting.unsqueeze(-1)).sum(1)
            self.faults += found
            self.num_diverged += found.sum()
            next_obs, reward = next_obs.masked_fill(unseen.unsqueeze(-1), 0.0), reward.masked_fill(unpaid, 0.0)
            terminated, success = terminated & ~diverged, success & ~diverged
            obs = self._restart(ended, self._drawing())
        return Step(obs, next_obs, reward, terminated, truncated, success, diverged)

    def _first_obs(self) -> Tensor:
        obs = by_task(self, self.worlds.observe())
        self._spoiled = ~sound(obs).all(-1)
        return obs.masked_fill(self._spoiled.unsqueeze(-1), 0.0)


def by_task(env: BatchedTaskEnv, x: Tensor) -> Tensor:
    return x.unflatten(0, (env.num_tasks, env.num_envs))


def as_before(env: Any) -> Any:
    """The same environment, which steps as it did; its physics is the C engine's, if it has any."""
    env.__class__ = EarlierTaskEnv
    if isinstance(env.worlds, MujocoWorlds):
        env.worlds.__class__, env.worlds.physics.__class__ = EarlierWorlds, EarlierPhysics
    return env


@torch.no_grad()
@_one_torch_thread()
def earlier_rollout(
    env: Any, act: Act, actor: Actor, episodes: int, generator: torch.Generator, *, min_steps: int = 0
) -> tuple[TrajectoryBatch, Actor]:
    """All steps that worlds may take, whether or not all are through."""
    num_steps = max(episodes * env.spec.horizon, -(-min_steps // env.num_envs) + env.spec.horizon if min_steps else 0)
    steps: list[dict[str, Any]] = []
    obs = env.reset()
    previous = nothing_before(obs, env.spec.action_dim)
    episodes_left = torch.full((env.num_tasks, env.num_envs), episodes)
    steps_left = torch.full((env.num_tasks, 1), min_steps)
    playing = episodes_left > 0
    for _ in range(num_steps):
        action, dist, actor = act(actor, obs, previous, generator)
        before = {"obs": obs, "action": action, "clock": env.clock.clone(), "valid": playing.clone(), "dist": dist}
        step = env.step(action)
        after = step._asdict() | before
        steps.append(after)
        previous = Previous(action, step.reward, step.terminated, step.truncated, step.next_obs)
        ended = step.terminated | step.truncated
        episodes_left -= ended.long()
        steps_left -= playing.sum(1, keepdim=True)
        playing &= ~ended | (episodes_left > 0) | (steps_left > 0)
        env.rest(~playing)
        obs = step.obs
    fields = tree_map(lambda *leaves: torch.stack(leaves, dim=2), *steps)
    zeros = torch.zeros_like(fields["reward"])
    log_prob = fields["dist"].log_prob(fields["action"])
    ended = fields["terminated"] | fields["truncated"]
    fields["valid"] = without_bad(fields["valid"], fields.pop("diverged"), ended, trials=False)
    return TrajectoryBatch(**fields, log_prob=log_prob, advantage=zeros, target=zeros), actor
