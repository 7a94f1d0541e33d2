"""Rollouts that seeds play together are, layout included, what each would have played alone, whatever the others do."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.envs.api import EnvSpec, drawn
from metarl.envs.worlds import BatchedTasks, Outcome, Worlds
from metarl.lockstep import Turns, make_env
from metarl.networks.distributions import DiagGaussian
from metarl.rollout import rollout
from metarl.types import Actor, Previous, TrajectoryBatch


@dataclass(frozen=True)
class Lives(BatchedTasks):
    """Episodes of as many steps as their task says; or without an end, the first one of a rollout then diverges."""

    joinable: ClassVar[bool] = True
    horizon: int = 40
    ends: bool = True

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(2, 2, self.horizon, terminates=self.ends, has_success=False)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return torch.randint(1, self.horizon, (num_tasks,), generator=generator).float()

    def worlds(self, num_worlds: int, **_: Any) -> Worlds:
        return LivingWorlds(self.ends, num_worlds)


class LivingWorlds:
    def __init__(self, ends: bool, num_worlds: int) -> None:
        self.ends, self.task = ends, torch.zeros(num_worlds)
        self.born, self.age, self.number = (torch.zeros(num_worlds) for _ in range(3))

    def set_tasks(self, task: Tensor) -> None:
        self.task = task

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        self.born = torch.where(mask, drawn(torch.rand, mask.shape, generator), self.born)
        self.age, self.number = self.age.masked_fill(mask, 0), mask.float() if mask.all() else self.number + mask

    def observe(self) -> Tensor:
        return torch.stack([self.born, self.age], dim=1)

    def step(self, action: Tensor) -> Outcome:
        self.age = self.age + 1
        over, nowhere = self.age == self.task, torch.zeros_like(self.task, dtype=torch.bool)
        bad = nowhere if self.ends else over & (self.number == 1)
        return Outcome(action.sum(1), over if self.ends else nowhere, nowhere, bad)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in ("task", "born", "age", "number")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        vars(self).update(state)


class Scales:
    """Acts by a dictionary of the parameters of all tasks, which happen to be as many as these."""

    limit = torch.inf  # of what it can bear to see

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scales)

    __hash__ = None  # type: ignore[assignment]

    def act(
        self, actor: Actor, obs: Tensor, previous: Previous, generator: torch.Generator
    ) -> tuple[Tensor, DiagGaussian, Actor]:
        if obs.max() > self.limit:
            raise ValueError(f"it saw {obs.max():.0f}")
        mean = obs * actor["scale"]
        dist = DiagGaussian(mean, torch.zeros_like(mean))
        return dist.sample(generator), dist, actor


def played(tasks: Lives, lives: list[float], seed: int, learner: Any, min_steps: int) -> list[TrajectoryBatch]:
    """Two rollouts."""
    env = make_env(tasks, len(lives), 1, seed=seed)
    env.set_tasks(torch.tensor(lives))
    generator = torch.Generator().manual_seed(seed)
    actor = {"scale": torch.tensor([1.0, 0.1 * seed])}
    found = [rollout(env, learner.act, actor, 1, generator, min_steps=min_steps)[0] for _ in range(2)]
    assert int(env.num_diverged) == 2 * int(not tasks.ends and min(lives) < tasks.horizon)
    return found


def assert_same(found: list[TrajectoryBatch], expected: list[TrajectoryBatch]) -> None:
    for ours, theirs in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert ours.stride() == theirs.stride()  # a sum over time depends on it
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("tasks", "min_steps", "lives"),
    [
        (Lives(), 0, [[3.0, 5.0], [30.0, 39.0]]),
        (Lives(), 50, [[17.0, 30.0], [7.0, 39.0]]),
        (Lives(horizon=16, ends=False), 32, [[99.0, 99.0], [3.0, 99.0]]),  # the first is through a reset earlier
    ],
    ids=["ends", "at least so many steps", "diverges"],
)
def test_a_seed_that_is_through_earlier_has_what_it_has_alone(
    tasks: Lives, min_steps: int, lives: list[list[float]]
) -> None:
    works: list[Callable[[], Any]] = [
        partial(played, tasks, own, seed, Scales(), min_steps) for seed, own in enumerate(lives, 1)
    ]
    alone = [work() for work in works]
    assert len({batch[0].reward.shape for batch in alone}) == 2
    for seat, expected in zip(Turns(works).run(), alone, strict=True):
        assert seat.error is None
        assert_same(seat.result, expected)


def test_a_policy_that_fails_fails_alone() -> None:
    frail = Scales()
    frail.limit = 20.0  # steps of age
    each = [(Scales(), [30.0, 39.0]), (frail, [30.0, 39.0]), (frail, [5.0, 9.0])]
    works: list[Callable[[], Any]] = [
        partial(played, Lives(), lives, seed, learner, 0) for seed, (learner, lives) in enumerate(each, 1)
    ]
    first, second, third = Turns(works).run()
    assert str(second.error) == "it saw 21"
    assert first.error is third.error is None
    assert_same(first.result, works[0]())
    assert_same(third.result, works[2]())
