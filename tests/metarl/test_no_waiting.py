"""What a step computes beyond physics asks the host for nothing and copies nothing from it: a GPU would wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.envs.metaworld.goals import draw_goals
from metarl.envs.metaworld.sawyer import SAWYER
from metarl.envs.metaworld.worlds import ENVIRONMENTS, TaskWorlds
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.physics import make_physics
from metarl.envs.registry import TASKS

pytestmark = pytest.mark.usefixtures("one_thread")

READS = ("item", "tolist", "numpy", "cpu", "nonzero", "new_tensor", "__bool__", "__int__", "__float__", "__index__")
MAKES = ("tensor", "as_tensor", "from_numpy", "nonzero", "masked_select", "unique")
WORLDS = 3


def refused(name: str) -> Callable[..., Any]:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError(f"{name} makes a GPU wait")

    return refuse


@contextmanager
def on_a_gpu_that_must_not_wait() -> Iterator[None]:
    plain_get, plain_set = Tensor.__getitem__, Tensor.__setitem__

    def is_mask(index: Any) -> bool:
        parts = index if isinstance(index, tuple) else (index,)
        return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)

    def get(self: Tensor, index: Any) -> Tensor:
        return refused("a mask as an index")() if is_mask(index) else plain_get(self, index)

    def put(self: Tensor, index: Any, value: Any) -> None:
        return refused("a mask as an index")() if is_mask(index) else plain_set(self, index, value)

    with pytest.MonkeyPatch.context() as patch:
        for name in READS:
            patch.setattr(Tensor, name, refused(name))
        for name in MAKES:
            patch.setattr(torch, name, refused(f"torch.{name}"))
        patch.setattr(Tensor, "__getitem__", get)
        patch.setattr(Tensor, "__setitem__", put)
        yield


def test_the_guard_refuses_what_waits() -> None:
    x = torch.arange(3.0)
    for wait in (
        lambda: x.item(),
        lambda: bool(x[0]),
        lambda: x[x > 1],
        lambda: x.new_tensor(1.0),
        lambda: torch.tensor(1),
    ):
        with pytest.raises(AssertionError, match="makes a GPU wait"), on_a_gpu_that_must_not_wait():
            wait()
    with on_a_gpu_that_must_not_wait():
        torch.where(x > 1, x, x[1])


PRESETS = {
    f"{name}-{preset}": task
    for name, cls in sorted(TASKS.items())
    if issubclass(cls, MujocoTask)
    for preset, task in cls.presets.items()
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_mujoco_tasks_functions(name: str) -> None:
    task = PRESETS[name]
    physics = make_physics(task.model(), WORLDS, num_threads=1)
    generator = torch.Generator().manual_seed(0)
    parameter = task.sample(WORLDS, generator)
    task.apply_task(physics, parameter)
    mask, action = torch.tensor([True, False, True]), torch.zeros(WORLDS, task.spec.action_dim)

    def everything() -> None:
        task.reset_state(physics, mask, generator)
        before = task.measure(physics)
        task.observe(physics)
        task.reward(physics, before, action, parameter)
        task.terminated(physics, parameter)
        task.success(physics, parameter)

    everything()  # constants are made once
    with on_a_gpu_that_must_not_wait():
        everything()


@pytest.mark.parametrize("reward", ["v2", "v1"])
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_meta_world_task(name: str, reward: str) -> None:
    worlds = TaskWorlds(SAWYER[name], WORLDS, reward=reward, num_threads=1)
    worlds.set_goals(torch.from_numpy(draw_goals((name,), 1)[name][:WORLDS]))
    worlds.reset(torch.ones(WORLDS, dtype=torch.bool))
    action = torch.zeros(WORLDS, 4, dtype=torch.float64)
    for _ in range(2):
        worlds.act(action)
        worlds.physics.step(5)
        worlds.evaluate()
    worlds.act(action)
    worlds.physics.step(5)
    with on_a_gpu_that_must_not_wait():
        worlds.act(action)
        worlds.evaluate()
    worlds.physics.reset = worlds.physics.forward = lambda mask: None  # the C engine itself lives on the host
    with on_a_gpu_that_must_not_wait():
        worlds.reset(torch.ones(WORLDS, dtype=torch.bool))
