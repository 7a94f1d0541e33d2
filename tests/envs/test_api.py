"""Task distributions by name: what is registered, its presets, and the environment of one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from metarl import cli, envs
from metarl.envs import TASKS, Navigation, TaskDistribution, find_preset


def test_an_environment_is_made_by_name_and_preset() -> None:
    env = envs.make("navigation", 2, 3, preset="corner", seed=0)
    env.set_tasks(torch.tensor([[2.0, 2.0], [-2.0, 2.0]]))
    assert env.reset().shape == (2, 3, 2)
    step = env.step(torch.ones(2, 3, 2))
    assert step.next_obs[0, 0].norm() > 0.2 * 2**0.5 - 0.3, "the corner task's longer steps"
    with pytest.raises(ValueError, match="task is 'nowhere': use one of ant_damaged, "):
        envs.make("nowhere", 1, 1, seed=0)


def test_every_task_of_the_package_is_one_of_its_names() -> None:
    for tasks in TASKS.values():
        if tasks.__module__.startswith("envs."):
            assert getattr(envs, tasks.__name__) is tasks


@pytest.fixture
def heirs() -> Iterator[dict[str, type[TaskDistribution]]]:
    """A task made of another one without presets of its own, and one with."""
    before = dict(TASKS)

    @dataclass(frozen=True)
    class Strides(Navigation):
        name: ClassVar[str] = "strides"
        max_step: float = 0.5

    @dataclass(frozen=True)
    class Steps(Navigation):
        name: ClassVar[str] = "steps"
        presets = {"long": Navigation(max_step=0.9)}  # noqa: RUF012

    yield {"strides": Strides, "steps": Steps}
    TASKS.clear()
    TASKS.update(before)


def test_a_task_made_of_another_has_presets_of_its_own_or_none(
    heirs: dict[str, type[TaskDistribution]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_preset("strides") == heirs["strides"](max_step=0.5)
    assert find_preset("steps").max_step == 0.9
    with pytest.raises(ValueError, match="preset is 'corner': strides has none"):
        find_preset("strides", "corner")
    cli.main(["list"])
    assert ["strides", "-", "2", "2", "2", "100"] in [line.split()[:6] for line in capsys.readouterr().out.splitlines()]
