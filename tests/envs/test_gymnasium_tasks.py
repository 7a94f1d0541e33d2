"""Environments of Gymnasium as tasks: what happens in a world is what happens in the environment itself."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl import cli
from metarl.envs.fields import BadField
from metarl.envs.gymnasium_tasks import GymTasks
from metarl.envs.registry import TASKS, TaskDistribution
from metarl.runs.code import run_code

pytestmark = pytest.mark.usefixtures("one_thread")
FILE = Path(__file__).parents[2] / "experiments" / "own_environment.py"
TINY = ["--num-tasks", "2", "--iterations", "2", "--horizon", "8", "--eval-interval", "1", "--eval-tasks", "2"]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


def tasks_of(name: str, **fields: Any) -> TaskDistribution:
    TASKS.pop("cartpole_length", None)
    TASKS.pop("pendulum_gravity", None)
    run_code(FILE)
    return TASKS[name](**fields)


def actions_for(env: Any, generator: torch.Generator) -> Tensor:
    shape = (env.num_tasks, env.num_envs, env.spec.action_dim)
    draw = torch.rand(shape, generator=generator)
    return torch.nn.functional.one_hot(draw.argmax(-1), shape[-1]).float() if env.spec.discrete else 3 * draw - 1.5


@pytest.mark.parametrize("name", ["cartpole_length", "pendulum_gravity"])
def test_a_world_is_the_environment_itself(name: str) -> None:
    tasks: Any = tasks_of(name, horizon=60)
    env, task = tasks.make(2, 2, seed=0), torch.tensor([0.4, 1.5])
    env.set_tasks(task)
    obs, generator = env.reset(), torch.Generator().manual_seed(0)
    mirrors = [tasks.env() for _ in range(4)]
    for world, mirror in enumerate(mirrors):
        tasks.set_task(mirror, task[world // 2].numpy())
        assert np.array_equal(mirror.reset(seed=int(env.worlds._seeds[world]))[0], obs.flatten(0, 1)[world].numpy())
    ends = 0
    for _ in range(100):
        actions = actions_for(env, generator)
        step = env.step(actions)
        for world, (mirror, action) in enumerate(zip(mirrors, actions.flatten(0, 1), strict=True)):
            given = int(action.argmax()) if env.spec.discrete else 2 * action.clamp(-1, 1).numpy()
            seen, reward, terminated, _, _ = mirror.step(given)
            np.testing.assert_allclose(step.next_obs.flatten(0, 1)[world].numpy(), seen, atol=1e-5)
            assert float(step.reward.flatten()[world]) == pytest.approx(float(reward), abs=1e-5)
            assert bool(step.terminated.flatten()[world]) == terminated
            if bool(step.truncated.flatten()[world]) or terminated:
                first, _ = mirror.reset(seed=int(env.worlds._seeds[world]))
                assert np.array_equal(step.obs.flatten(0, 1)[world].numpy(), first)
                ends += 1
    assert ends >= 4, "every world began anew"


@pytest.mark.parametrize("name", ["cartpole_length", "pendulum_gravity"])
def test_snapshots_repeat_every_bit_and_hold_tensors_alone(name: str) -> None:
    tasks = tasks_of(name, horizon=30)
    env, other = tasks.make(2, 2, seed=0), tasks.make(2, 2, seed=1)
    env.set_tasks(torch.tensor([0.4, 1.5]))
    env.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(47):  # worlds are at places of their own where episodes end early
        env.step(actions_for(env, generator))
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(40):
        actions = actions_for(env, generator)
        first, second = env.step(actions), other.step(actions)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_a_world_draws_depends_on_no_other() -> None:
    tasks = tasks_of("cartpole_length")
    firsts = []
    for push in (0, 1):  # of the first world alone
        env = tasks.make(2, 1, seed=0)
        env.set_tasks(torch.tensor([0.4, 1.5]))
        env.reset()
        seen = []
        for t in range(60):
            choice = torch.tensor([[push], [t % 2]])
            seen.append(env.step(torch.nn.functional.one_hot(choice, 2).float()).obs[1])
        firsts.append(torch.stack(seen))
    assert torch.equal(*firsts)


@dataclass(frozen=True)
class Rooms(GymTasks):
    """Dict observations, and success by info."""

    horizon: int = 4
    success = "reached"

    def env(self) -> gymnasium.Env[Any, Any]:
        return Room()

    def set_task(self, env: Any, task: NDArray[np.float32]) -> None:
        env.goal = float(task)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return torch.rand(num_tasks, generator=generator)


class Room(gymnasium.Env[dict[str, Any], Any]):
    observation_space = spaces.Dict({"place": spaces.Box(-9, 9, (2,), np.float32), "door": spaces.Discrete(3)})
    action_space = spaces.Box(0.0, 2.0, (1,), np.float32)
    goal = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.at = 0.0
        return self.look(), {}

    def look(self) -> dict[str, Any]:
        return {"place": np.array([self.at, -1], np.float32), "door": np.int64(2)}

    def step(self, action: NDArray[Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.at += float(action[0])
        return self.look(), -1.0, False, False, {"reached": self.at >= self.goal}


def test_dicts_are_flattened_actions_rescaled_and_success_read() -> None:
    env = Rooms().make(2, 1, seed=0)
    assert (env.spec.obs_dim, env.spec.action_dim, env.spec.has_success) == (5, 1, True)
    env.set_tasks(torch.tensor([1.0, 3.0]))
    assert torch.equal(env.reset()[0, 0], torch.tensor([0.0, 0.0, 1.0, 0.0, -1.0]))  # door, then place
    step = env.step(torch.tensor([[[0.5]], [[5.0]]]))  # of [0, 2]: 1.5, and 2 at most
    assert step.obs[..., 3].flatten().tolist() == [1.5, 2.0]
    assert step.success.flatten().tolist() == [True, False]


def test_spaces_that_no_policy_acts_in_are_refused() -> None:
    class Odd(Room):
        action_space = spaces.MultiDiscrete([2, 3])

    wrong = type("Wrong", (Rooms,), {"env": lambda self: Odd()})()
    with pytest.raises(BadField, match=r"action_space of .* is MultiDiscrete"):
        _ = wrong.spec
    with pytest.raises(BadField, match="device is cuda"):
        Rooms().worlds(1, seed=0, device=torch.device("cuda"), physics="auto", num_threads=0)


@pytest.mark.parametrize(("name", "worlds"), [("cartpole_length", ("1", "2")), ("pendulum_gravity", ("2", "2"))])
def test_the_examples_train_and_resume(name: str, worlds: tuple[str, str], tmp_path: Path) -> None:
    tasks_of(name)
    TASKS.pop("cartpole_length")
    TASKS.pop("pendulum_gravity")
    code = ["--code", str(FILE)]
    options = [*TINY, "--num-envs", worlds[0], "--episodes", worlds[1], "--runs", str(tmp_path), "--name", "run"]
    cli.main(["train", name, *options, *code])
    cli.main(["train", "--resume", str(tmp_path / "run"), "--iterations", "3", *code])
    assert len((tmp_path / "run" / "progress.csv").read_text().splitlines()) == 1 + 3
