"""Environments of Gymnasium as tasks: what happens in a world is what happens in the environment itself."""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl import cli
from metarl.envs.api import EnvSpec, TaskEnv
from metarl.envs.fields import BadField
from metarl.envs.gymnasium_env import GymnasiumEnv
from metarl.envs.gymnasium_tasks import GymTasks
from metarl.envs.registry import TASKS, TaskDistribution
from metarl.envs.vector_env import TaskVectorEnv
from metarl.films.scenes import Drawn
from metarl.runs.code import run_code

pytestmark = pytest.mark.usefixtures("one_thread")
FILE = Path(__file__).parents[2] / "experiments" / "own_environment.py"
BATCHED = FILE.with_name("own_batched_environment.py")
TINY = ["--num-tasks", "2", "--horizon", "8", "--eval-interval", "2", "--eval-tasks", "2"]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


def tasks_of(name: str, **fields: Any) -> TaskDistribution:
    if name not in TASKS:
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


@pytest.mark.parametrize(
    ("name", "learner", "code"),
    [
        ("minigrid_goal", "rl2", None),
        ("river", "maml", FILE),
        ("bowl_pool", "rl2", BATCHED),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("cartpole_length", "rl2", None),
                ("pendulum_gravity", "maml", None),
                ("river", "rl2", FILE),
                ("bowl", "maml", BATCHED),
            )
        ),
    ],
)
def test_the_examples_train_and_resume(name: str, learner: str, code: Path | None, tmp_path: Path) -> None:
    """As many iterations at once, and in two parts: the same numbers, those of time excepted."""
    given = [] if code is None else ["--code", str(code)]
    few = ["--num-envs", "1", "--episodes", "2"] if learner == "rl2" else ["--num-envs", "2", "--episodes", "2"]
    options = [*TINY, "--learner", learner, *few, "--runs", str(tmp_path), *given]
    cli.main(["train", name, *options, "--iterations", "2", "--name", "whole"])
    cli.main(["train", name, *options, "--iterations", "1", "--name", "parts"])
    cli.main(["train", "--resume", str(tmp_path / "parts"), "--iterations", "2", *given])
    texts = [(tmp_path / run / "progress.csv").read_text() for run in ("whole", "parts")]
    whole, parts = (list(csv.DictReader(text.splitlines())) for text in texts)
    assert len(whole) == 2
    for a, b in zip(whole, parts, strict=True):
        assert [a[k] for k in a if not k.startswith("time/")] == [b[k] for k in b if not k.startswith("time/")]


@dataclass(frozen=True)
class Painted(GymTasks):
    """Pictures as observations, pixels from 0 to 255, that the worlds also show."""

    horizon: int = 4

    def env(self) -> gymnasium.Env[Any, Any]:
        return Painting()

    def set_task(self, env: Any, task: NDArray[np.float32]) -> None:
        env.column = int(task)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return torch.randint(3, (num_tasks,), generator=generator).float()


class Painting(gymnasium.Env[Any, Any]):
    observation_space = spaces.Box(0, 255, (2, 3, 1), np.uint8)
    action_space = spaces.Discrete(2, start=5)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012
    render_mode = "rgb_array"
    column = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.row = 0
        return self.look(), {}

    def look(self) -> NDArray[np.uint8]:
        picture = np.zeros((2, 3, 1), np.uint8)
        picture[self.row, self.column] = 255
        return picture

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        self.row = int(action) - 5
        return self.look(), float(self.row), False, False, {}

    def render(self) -> Any:
        return self.look().repeat(3, axis=2)


def test_pictures_are_flattened_and_keep_their_shape() -> None:
    env = Painted().make(2, 1, seed=0)
    assert (env.spec.obs_dim, env.spec.obs_shape, env.spec.action_dim) == (6, (2, 3, 1), 2)
    env.set_tasks(torch.tensor([0.0, 2.0]))
    env.reset()
    step = env.step(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    pictures = step.obs.unflatten(-1, env.spec.obs_shape)[:, 0, :, :, 0]
    assert pictures.tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]]
    assert step.reward.flatten().tolist() == [0, 1]
    with pytest.raises(BadField, match=r"obs_shape is .*: its product is not obs_dim, 5"):
        EnvSpec(5, 1, 1, terminates=False, has_success=False, obs_shape=(2, 3, 1))


def test_worlds_draw_themselves_for_gymnasium_and_for_films() -> None:
    assert Painted().frames_per_second == 7
    env = GymnasiumEnv(Painted(), task=1.0, render_mode="rgb_array")
    assert env.metadata["render_fps"] == 7
    env.reset()
    env.step(1)
    picture = env.render()
    assert picture is not None
    assert picture[..., 0].tolist() == [[0, 0, 0], [0, 255, 0]]
    many = TaskVectorEnv(Painted(), 2, task=[0.0, 2.0], render_mode="rgb_array")
    many.reset()
    assert [each[0, :, 0].tolist() for each in many.render() or ()] == [[255, 0, 0], [0, 0, 255]]
    assert Rooms().frames_per_second == 0
    with pytest.raises(BadField, match="render_mode is 'rgb_array': use None"):
        GymnasiumEnv(Rooms(), render_mode="rgb_array")
    (panels,) = Drawn(7.0).panels([np.stack([picture] * 2), picture[None]], [1], 30, 20)
    assert [panel.shape for panel in panels] == [(20, 30, 3)] * 2
    assert panels[0][15, 15].tolist() == [255, 255, 255], "a picture as large as fits"


@pytest.mark.slow
def test_a_run_is_filmed_by_the_render_of_its_environment(tmp_path: Path) -> None:
    code = ["--code", str(FILE)]
    options = [*TINY, "--learner", "rl2", "--num-envs", "1", "--episodes", "2", "--runs", str(tmp_path)]
    cli.main(["train", "river", *options, "--iterations", "1", "--name", "run", *code])
    cli.main(["video", str(tmp_path / "run"), *code])
    frames = imageio.mimread(tmp_path / "run" / "videos" / "river-task0.mp4", memtest=False)
    panel = frames[-1][68:, :480]
    assert (np.abs(panel[40, 240].astype(int) - [120, 170, 220]) < 20).all(), "the river in the middle"
    assert len(frames) >= 8


def test_rooms_of_minigrid_hide_their_goal_and_show_the_rest() -> None:
    pytest.importorskip("minigrid")
    tasks: Any = TASKS["minigrid_goal"]()
    drawn = tasks.sample(500, torch.Generator().manual_seed(0))
    assert {tuple(row) for row in drawn.tolist()} == {(x, y) for x in (1, 2, 3) for y in (1, 2, 3)} - {(1, 1)}
    env = tasks.make(2, 1, seed=0)
    env.set_tasks(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    first = env.reset()
    assert torch.equal(first[0], first[1]), "no observation shows the goal"
    room = first[0, 0].unflatten(-1, env.spec.obs_shape)
    assert room[0, :, 0].tolist() == pytest.approx([0.2] * 5)
    assert room[1, :, 0].tolist() == pytest.approx([0.2, 1.0, 0.1, 0.1, 0.2])
    left, right, forward = torch.eye(3)
    step = env.step(torch.stack([forward, right])[:, None])
    assert step.reward[0, 0] == pytest.approx(1 - 0.9 / 20)
    assert (step.terminated.flatten().tolist(), step.success.flatten().tolist()) == ([True, False], [True, False])
    assert torch.equal(step.obs[0], first[0]), "the next episode begins in the first cell"
    assert step.obs[1, 0].unflatten(-1, env.spec.obs_shape)[1, 1].tolist() == pytest.approx([1, 0, 1 / 3])
    env.step(torch.stack([left, forward])[:, None])
    step = env.step(torch.stack([left, forward])[:, None])
    assert step.reward.flatten().tolist() == pytest.approx([0, 1 - 0.9 * 3 / 20])
    picture = env.worlds.picture(1)
    assert (picture[-64:-32, 32:64] == picture[40, 70]).all(-1).mean() < 1, "the film shows the goal"


def test_without_minigrid_the_task_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.envs.small.minigrid_goal.find_spec", lambda _: None)
    tasks: Any = TASKS["minigrid_goal"](size=6)
    assert tasks.spec.obs_shape == (6, 6, 3), "it can be named"
    with pytest.raises(BadField, match="MiniGrid is not installed, use pip install minigrid"):
        tasks.make(1, 1, seed=0)


def test_worker_processes_change_no_number() -> None:
    """Bits of every step over ends of episodes, of a snapshot, and of pictures; classes of a file that --code names."""
    river: Any = type(tasks_of("river"))
    apart = type("Apart", (river,), {"processes": True, "__module__": river.__module__})
    vars(sys.modules[river.__module__])["Apart"] = apart
    envs = [cls(horizon=5).make(3, 1, seed=0, num_threads=2) for cls in (apart, river)]
    task = tasks_of("river").sample(3, torch.Generator().manual_seed(0))
    seen: list[list[Tensor]] = [[], []]
    for env, found in zip(envs, seen, strict=True):
        env.set_tasks(task)
        found.append(env.reset())
        for action in torch.rand(8, 3, 1, 2, generator=torch.Generator().manual_seed(1)):
            found.extend(env.step(action))
        env.load_state_dict(env.state_dict())
        found.extend(env.step(torch.ones(3, 1, 2)))
        found.append(torch.from_numpy(env.worlds.picture(2)))
    assert envs[0].worlds._workers.num_envs == 2
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a, b)


# --- batched environments of two kinds


def test_a_batched_environment_that_is_reset_by_a_mask_resumes_exactly() -> None:
    run_code(BATCHED)
    tasks = TASKS["bowl"](horizon=7)
    env, other = tasks.make(2, 3, seed=0), tasks.make(2, 3, seed=1)
    generator = torch.Generator().manual_seed(0)
    env.set_tasks(torch.tensor([[1.0, 0.5], [-1.0, 0.0]]))
    first = env.reset()
    slope, wind = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.5], [0.0]])
    action = actions_for(env, generator)
    step = env.step(action)
    speed = 0.1 * (2 * action.clamp(-1, 1)[..., 0] - slope * first[..., 0] + wind)
    assert torch.allclose(step.obs[..., 0], first[..., 0] + 0.1 * speed)
    for _ in range(16):
        env.step(actions_for(env, generator))
    other.load_state_dict(env.state_dict())
    for _ in range(16):
        action = actions_for(env, generator)
        for a, b in zip(env.step(action), other.step(action), strict=True):
            assert torch.equal(a, b)


def test_an_environment_that_resets_itself_hides_no_last_observation() -> None:
    """The pool's step that begins an episode is taken in the same step: ends, clocks and both observations."""
    run_code(BATCHED)
    tasks: Any = TASKS["bowl_pool"]()
    env = tasks.make(2, 2, seed=0)
    assert isinstance(env, TaskEnv)
    env.set_tasks(torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))  # the hill throws its balls over the rim
    obs, generator, ends = env.reset(), torch.Generator().manual_seed(0), []
    assert obs[..., 1].eq(0).all()
    assert obs[..., 0].abs().max() <= 1
    for t in range(120):
        slope, wind = torch.tensor([[0.0], [-1.0]]), torch.tensor([[0.0], [1.0]])
        action = actions_for(env, generator)
        step = env.step(action)
        speed = 0.95 * obs[..., 1] + 0.1 * (2 * action.clamp(-1, 1)[..., 0] - slope * obs[..., 0] + wind)
        assert torch.allclose(step.next_obs[..., 0], obs[..., 0] + 0.1 * speed, atol=1e-5), t
        ended = step.terminated | step.truncated
        assert torch.equal(step.terminated, step.next_obs[..., 0].abs() > 5)
        assert torch.equal(step.obs[~ended], step.next_obs[~ended])
        assert step.obs[ended][..., 1].eq(0).all()
        assert env.clock[ended].eq(0).all()
        ends += [(t, bool(step.truncated[0, 0]))] if ended[0, 0] else []
        obs = step.obs
        if t == 60:
            saved, later = env.state_dict(), tasks.make(2, 2, seed=9)
            later.load_state_dict(saved)
        if t >= 60:
            assert t == 60 or torch.equal(later.step(action).obs, step.obs)
    assert ends == [(49, True), (99, True)]
