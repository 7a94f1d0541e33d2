"""The environments of several seeds as one of all their tasks: one step of physics, observation and reward for all.

Each seed has a :class:`SeatEnv`, which training sees: its tasks, what draws its resets, its counters and checkpoints.
Rollouts are played in :class:`Together`, whose worlds are those of the first seed, then the second's and so on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import Several
from metarl.envs.draws import seed_of
from metarl.envs.registry import TaskDistribution
from metarl.envs.worlds import BatchedTaskEnv, BatchedTasks, Outcome, Worlds


class Share:
    """:class:`metarl.envs.worlds.Worlds` of one seed, which others move: it knows its tasks and what state it is in."""

    def __init__(self) -> None:
        self.all: Worlds | None = None
        self.rows: slice
        self.task: Tensor | None = None
        self.loaded: dict[str, Tensor] | None = None
        """What the worlds were given after they moved last; the reset that a rollout begins with does away with it."""

    @property
    def num_overflowed(self) -> int:
        """Of all seeds: the engine's buffers are in common."""
        return int(getattr(self.all, "num_overflowed", 0))

    def set_tasks(self, task: Float[Tensor, "world ..."]) -> None:
        self.task = task

    def state_dict(self) -> dict[str, Tensor]:
        if self.loaded is not None:
            return {name: value.clone() for name, value in self.loaded.items()}
        assert self.all is not None
        part = getattr(self.all, "part", None)
        if part is not None:
            return dict(part(self.rows))
        return {name: value[self.rows].clone() for name, value in self.all.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.loaded = state

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        raise RuntimeError("these worlds belong to seeds in lockstep: rollout moves them")

    def observe(self) -> Float[Tensor, "world obs"]:
        raise RuntimeError("these worlds belong to seeds in lockstep: rollout observes them")

    def step(self, action: Float[Tensor, "world act"]) -> Outcome:
        raise RuntimeError("these worlds belong to seeds in lockstep: rollout moves them")


class SeatEnv(BatchedTaskEnv):
    """The environment of one seed.

    Args:
        build: makes the worlds of so many tasks.
        kind: what is equal among those that can be played together.
    """

    worlds: Share

    def __init__(
        self, like: BatchedTaskEnv, num_tasks: int, *, seed: int, build: Callable[[int], BatchedTaskEnv], kind: Any
    ) -> None:
        super().__init__(Share(), like.spec, num_tasks, like.num_envs, seed=seed, device=str(like.device))
        self.task_shape = like.task_shape
        self.build, self.kind = build, kind
        self.together: Together

    def set_tasks(self, task: Float[Tensor, "task ..."]) -> None:
        super().set_tasks(task)
        self.together.tasks_changed = True

    def draws(self) -> tuple[Tensor, int]:
        """Where what draws its resets stands."""
        return self._generator.get_state(), self._resets

    def put_back(self, draws: tuple[Tensor, int]) -> None:
        """To where :meth:`draws` was, as if what was played since had not been."""
        self._generator.set_state(draws[0])
        self._resets = draws[1]


class Together(BatchedTaskEnv):
    """All tasks of the seeds whose environments are ``envs``, in that order; what is drawn is drawn seed by seed."""

    def __init__(self, env: BatchedTaskEnv, envs: Sequence[SeatEnv]) -> None:
        super().__init__(env.worlds, env.spec, env.num_tasks, env.num_envs, seed=0, device=str(env.device))
        self.envs, self.tasks_changed = list(envs), True
        self._generator: Several = Several([each._generator for each in envs])
        self._of_each_step = Several([each._of_step for each in envs])
        self._rested: list[tuple[int, Tensor]] = []
        worlds = envs[0].num_tasks * env.num_envs
        for number, each in enumerate(envs):
            overflowed = each.num_overflowed
            each.together, each.worlds.all = self, env.worlds
            each._overflowed_before += overflowed - each.num_overflowed
            each.worlds.rows = slice(number * worlds, (number + 1) * worlds)

    def reset(self) -> Float[Tensor, "task env obs"]:
        """Of a rollout's beginning."""
        if self.tasks_changed:
            given = [each.worlds.task for each in self.envs]
            self.worlds.set_tasks(torch.cat([task for task in given if task is not None]))
            self.tasks_changed = False
        self.faults.zero_()
        self._rested.clear()
        for each in self.envs:
            each._resets += 1
        return super().reset()

    def _drawing(self) -> torch.Generator:
        if (found := super()._drawing()) is self._generator:
            return found
        for each in self.envs:
            each._of_step.manual_seed(seed_of(each._seed, each._resets, self._steps))
        return self._of_each_step

    def rest(self, worlds: Bool[Tensor, "task env"]) -> None:
        super().rest(worlds)
        self._rested.append((self._steps, worlds.unflatten(0, (len(self.envs), -1)).flatten(1).all(1)))

    def steps_played(self) -> list[int]:
        """Steps after which every world of a seed rested."""
        found = [self._steps] * len(self.envs)
        if not self._rested:
            return found
        steps, rested = zip(*self._rested, strict=True)
        for at, done in reversed(list(zip(steps, torch.stack(rested).tolist(), strict=True))):
            found = [at if of_seed else before for of_seed, before in zip(done, found, strict=True)]
        return found

    def give_back(self) -> None:
        """Tells each seed's environment what a rollout came to."""
        for drawing in (self._generator, self._of_each_step):
            drawing.require_unused()
        size = self.envs[0].num_tasks
        for number, each in enumerate(self.envs):
            rows = slice(number * size, (number + 1) * size)
            each.clock.copy_(self.clock[rows])
            each.faults += self.faults[rows]
            each.num_diverged += self.faults[rows].sum()
            each._spoiled = self._spoiled[rows].clone()
            each._begun, each._steps, each._restarted = True, self._steps, 0
            each.worlds.loaded = None


def joinable(tasks: TaskDistribution) -> bool:
    return isinstance(tasks, BatchedTasks) and tasks.joinable


def make_together(
    tasks: TaskDistribution, num_tasks: int, num_envs: int, *, seeds: Sequence[int], **options: Any
) -> list[SeatEnv]:
    """As ``tasks.make`` for each of ``seeds``, all upon the same worlds."""
    kind = (tasks, num_tasks, num_envs, options)

    def build(num_seeds: int) -> BatchedTaskEnv:
        made = tasks.make(num_seeds * num_tasks, num_envs, seed=0, **options)
        assert isinstance(made, BatchedTaskEnv)
        return made

    found = build(len(seeds))
    envs = [SeatEnv(found, num_tasks, seed=seed, build=build, kind=kind) for seed in seeds]
    Together(found, envs)
    return envs


def together(envs: Sequence[SeatEnv]) -> Together:
    """The environment of exactly these seeds, made anew where one has left or come."""
    current = envs[0].together
    return current if current.envs == list(envs) else Together(envs[0].build(len(envs)), envs)
