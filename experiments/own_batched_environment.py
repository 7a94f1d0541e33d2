"""Batched environments of one's own, complete in this file: one that is reset by a mask, one that resets itself.

Both are the same ball in a bowl of unknown slope, as two kinds of libraries would write it, in tensors over worlds:

- ``Bowl`` restarts the worlds it is told to, as ManiSkill's and Isaac Lab's environments do. Such an environment fits
  :class:`metarl.envs.worlds.Worlds`; the library keeps time limits and episodes, and a run resumes to the last bit.
- ``Pool`` begins the next episode of a world in the step after its last one and keeps its own time limit, as EnvPool's
  do. It fits :class:`metarl.envs.TaskEnv`, the protocol that training steps, which ``PoolEnv`` implements.

    metarl train bowl --code experiments/own_batched_environment.py --name bowl
    metarl train bowl_pool --learner rl2 --code experiments/own_batched_environment.py --name pool
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl import MAML, RL2, Experiment, GaussianMLP, RecurrentPolicy, presets
from metarl.envs import BatchedTasks, EnvSpec, Outcome, Step, TaskDistribution
from metarl.envs.api import drawn

HORIZON, STEP = 50, 0.1  # steps of an episode; seconds of a step


class Bowl:
    """ManiSkill's kind: worlds begin anew where ``reset`` is told to."""

    def __init__(self, num_worlds: int, device: torch.device) -> None:
        self.place, self.speed, self.slope, self.wind = torch.zeros(4, num_worlds, device=device)

    def reset(self, env_idx: Tensor, place: Tensor) -> None:
        self.place[env_idx], self.speed[env_idx] = place, 0.0

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A force [world] -> observation [world, 2], reward and end [world]."""
        self.speed = 0.95 * self.speed + STEP * (2 * action - self.slope * self.place + self.wind)
        self.place = self.place + STEP * self.speed
        return self.look(), -(self.place**2) - 0.01 * action**2, self.place.abs() > 5

    def look(self) -> Tensor:
        return torch.stack([self.place, self.speed], dim=1)


class BowlWorlds:
    """:class:`metarl.envs.worlds.Worlds`: what the library asks of such an environment."""

    def __init__(self, num_worlds: int, device: torch.device) -> None:
        self.bowl = Bowl(num_worlds, device)

    def set_tasks(self, task: Tensor) -> None:  # [world, 2]
        self.bowl.slope, self.bowl.wind = task.unbind(1)

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        place = 2 * drawn(torch.rand, mask.shape, generator) - 1  # for all, whatever the mask
        self.bowl.reset(mask.nonzero()[:, 0], place[mask])

    def observe(self) -> Tensor:
        return self.bowl.look()

    def step(self, action: Tensor) -> Outcome:  # [world, 1] in [-1, 1]
        _, reward, terminated = self.bowl.step(action[:, 0])
        never = torch.zeros_like(terminated)
        return Outcome(reward, terminated, success=never, diverged=never)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in vars(self.bowl).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self.bowl, name, value.clone())


@dataclass(frozen=True)
class BowlTasks(BatchedTasks):
    """Task parameter: slope, uniform in [-1, 1] (below 0 it is a hill), and wind, uniform in [-1, 1]."""

    name = "bowl"

    horizon: int = HORIZON
    """Steps of an episode, of 0.1 s each."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(obs_dim=2, action_dim=1, horizon=self.horizon, terminates=True, has_success=False)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(num_tasks, 2, generator=generator) - 1

    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> BowlWorlds:
        return BowlWorlds(num_worlds, device)


class Pool:
    """EnvPool's kind: the step after the last one of an episode ignores its action and begins the next episode."""

    def __init__(self, num_worlds: int, seed: int) -> None:
        self.bowl, self.generator = Bowl(num_worlds, torch.device("cpu")), torch.Generator().manual_seed(seed)
        self.age, self.over = torch.zeros(num_worlds, dtype=torch.int64), torch.ones(num_worlds, dtype=torch.bool)

    def reset(self) -> Tensor:
        self.over[:] = True
        return self.step(torch.zeros(len(self.age)), torch.arange(len(self.age)))[0]

    def step(self, action: Tensor, env_id: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Steps the worlds of ``env_id`` alone -> observation, reward, terminated, truncated of these."""
        still = self.bowl.look()
        _, reward, terminated = self.bowl.step(torch.zeros(len(self.age)).index_copy(0, env_id, action))
        others = torch.ones_like(self.over).index_fill(0, env_id, False)
        self.bowl.place, self.bowl.speed = torch.where(others[:, None], still, self.bowl.look()).unbind(1)
        begin = self.over & ~others
        self.bowl.reset(begin.nonzero()[:, 0], 2 * torch.rand(int(begin.sum()), generator=self.generator) - 1)
        self.age = torch.where(others, self.age, self.age + 1).masked_fill(begin, 0)
        terminated, truncated = terminated & ~begin, (self.age >= HORIZON) & ~begin
        self.over = torch.where(others, self.over, terminated | truncated)
        reward = reward.masked_fill(begin, 0.0)
        return self.bowl.look()[env_id], reward[env_id], terminated[env_id], truncated[env_id]


class PoolEnv:
    """:class:`metarl.envs.TaskEnv` over a pool: a step that ends an episode also begins the next."""

    num_overflowed = 0

    def __init__(self, spec: EnvSpec, num_tasks: int, num_envs: int, seed: int) -> None:
        self.spec, self.num_tasks, self.num_envs, self.device = spec, num_tasks, num_envs, torch.device("cpu")
        self.pool = Pool(num_tasks * num_envs, seed)
        self.clock = torch.zeros(num_tasks, num_envs, dtype=torch.int64)
        self.num_diverged, self.faults = (
            torch.zeros((), dtype=torch.int64),
            torch.zeros(num_tasks, 3, dtype=torch.int64),
        )

    def set_tasks(self, task: Tensor) -> None:
        self.pool.bowl.slope, self.pool.bowl.wind = task.repeat_interleave(self.num_envs, dim=0).unbind(1)

    def reset(self) -> Tensor:
        self.clock.zero_()
        return self._by_task(self.pool.reset())

    def step(self, action: Tensor) -> Step:
        everywhere = torch.arange(self.num_tasks * self.num_envs)
        seen, reward, terminated, truncated = self.pool.step(action.flatten().clamp(-1, 1), everywhere)
        ended, obs = terminated | truncated, seen.clone()
        if ended.any():
            late = ended.nonzero()[:, 0]
            obs[late] = self.pool.step(torch.zeros(len(late)), late)[0]
        self.clock = (self.clock + 1).masked_fill(self._by_task(ended), 0)
        never = torch.zeros_like(ended)
        told = (obs, seen, reward, terminated, truncated & ~terminated, never, never)
        return Step(*(self._by_task(x) for x in told))

    def rest(self, worlds: Tensor) -> None:
        """All worlds move on: that is allowed."""

    def state_dict(self) -> dict[str, Any]:
        """Everything; a pool that cannot be asked for its state resumes with new episodes, and not exactly."""
        state = {name: value.clone() for name, value in vars(self.pool.bowl).items()}
        state |= {"age": self.pool.age.clone(), "over": self.pool.over.clone(), "clock": self.clock.clone()}
        return state | {"generator": self.pool.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in vars(self.pool.bowl):
            setattr(self.pool.bowl, name, state[name].clone())
        self.pool.age, self.pool.over, self.clock = (state[name].clone() for name in ("age", "over", "clock"))
        self.pool.generator.set_state(state["generator"])

    def _by_task(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (self.num_tasks, self.num_envs))


@dataclass(frozen=True)
class PoolTasks(TaskDistribution):
    """The same tasks, in worlds that keep their own episodes."""

    name = "bowl_pool"

    horizon: int = HORIZON
    """Steps of an episode; the pool decides."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(obs_dim=2, action_dim=1, horizon=HORIZON, terminates=True, has_success=False)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return BowlTasks().sample(num_tasks, generator)

    def make(self, num_tasks: int, num_envs: int, *, seed: int, **_: Any) -> PoolEnv:
        return PoolEnv(self.spec, num_tasks, num_envs, seed)


MLP = MAML(policy=GaussianMLP((64, 64)), inner_lr=0.1)
presets.add({"default": Experiment(BowlTasks(), MLP, num_tasks=20, num_envs=10, episodes=10, iterations=40)})
GRU = RL2(policy=RecurrentPolicy(memory="gru", memory_size=64), learning_rate=3e-3, epochs=4, minibatches=2)
presets.add({"default": Experiment(PoolTasks(), GRU, num_tasks=60, num_envs=1, episodes=2, iterations=40)})
