"""metarl video: what is recorded, what is drawn, and machines that cannot draw."""

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from imageio.plugins.ffmpeg import get_exe
from PIL import ImageColor

from metarl import evaluate
from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2, RL2Actor
from metarl.envs import camera
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.metaworld import ML1, MT10
from metarl.envs.metaworld.sawyer import SAWYER
from metarl.envs.registry import TaskDistribution
from metarl.envs.small import navigation
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.films import scenes, video
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.snapshot import capture, initial_progress
from metarl.seeds import stream
from metarl.types import Previous

NAVIGATION = Experiment(
    task=Navigation(variant="corner", horizon=10),
    learner=MAML(policy=GaussianMLP(hidden_sizes=(8,))),
    num_tasks=2,
    num_envs=4,
    episodes=4,
    eval_interval=0,
    eval_tasks=3,
)
CHEETAH = replace(NAVIGATION, task=HalfCheetahDir(horizon=10, control_cost=0.0))
REMEMBERING = replace(NAVIGATION, learner=RL2(policy=RecurrentPolicy(memory_size=8)), num_envs=2, episodes=6)
BANDIT = replace(REMEMBERING, task=Bandit(arms=3), episodes=18)  # trials of 9 pulls
MDP = replace(REMEMBERING, task=TabularMDP(states=4, actions=3, horizon=5))
DRAWER = replace(NAVIGATION, task=ML1(env="drawer-open-v3", horizon=6))


def make_run(experiment: Experiment, folder: Path) -> Path:
    """A run stopped before its first iteration."""
    run = create_run(experiment, folder, "tiny")
    env = experiment.make_env(experiment.num_tasks, experiment.num_envs, stream="resets")
    checkpoint.save_iteration(run / "checkpoints", 0, capture(experiment, initial_progress(experiment), env))
    return run


def read_mp4(path: Path) -> np.ndarray:
    """Frames [frame, height, width, RGB]; imageio's own reader leaves its pipes open."""
    command = [get_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    size = (video.HEADER + video.HEIGHT, 2 * video.WIDTH + video.DIVIDER)
    return np.frombuffer(raw, np.uint8).reshape(-1, *size, 3)


@pytest.fixture
def no_graphics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "PROBE", "raise SystemExit(1)")


@pytest.mark.parametrize("asked", ["osmesa", "nonsense", ""])
def test_a_backend_that_cannot_work_is_passed_over(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("MUJOCO_GL", asked)
    monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")  # makes importing mujoco's osmesa fail, as missing libraries do
    assert camera.find_backend() in (None, "egl")


def test_without_graphics_the_packages_are_named(no_graphics: None) -> None:
    assert camera.find_backend() is None
    with pytest.raises(camera.NoGraphics, match="libosmesa6, or libegl1 libgl1 libgl1-mesa-dri") as error:
        camera.use_backend()
    assert "\n" not in str(error.value)


def test_without_graphics_a_cheetah_is_refused_before_any_work(tmp_path: Path, no_graphics: None) -> None:
    run = create_run(CHEETAH, tmp_path, "untrained")  # a checkpoint is not even looked for
    with pytest.raises(camera.NoGraphics):
        video.render_run(run)


def test_recorded_poses_belong_to_the_episode_whose_return_is_shown() -> None:
    state = initial_progress(CHEETAH).learner_state
    env = CHEETAH.make_env(1, 4, stream="video resets")
    before, between, after = video.record(CHEETAH, state, env, torch.tensor(-1.0), adapt_steps=2)
    step_seconds = 0.05
    for episode in (before, between, after):
        moved = episode.states[:, 0] - episode.states[0, 0]
        np.testing.assert_allclose(episode.returns[:-1], -moved / step_seconds, atol=1e-5)
        assert len(episode.returns) == CHEETAH.task.horizon + 1


def test_the_film_shows_what_meta_testing_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    state, task = initial_progress(CHEETAH).learner_state, torch.tensor(1.0)
    envs = [CHEETAH.make_env(1, 4, stream="video resets") for _ in range(2)]
    shown = [episode.returns[-1] for episode in video.record(CHEETAH, state, envs[0], task, adapt_steps=2)]
    monkeypatch.setattr(evaluate, "stream", lambda *_, **__: stream(CHEETAH.seed, "video actions"))
    measured = evaluate.meta_test(CHEETAH.learner, state, envs[1], task[None], scales=[1.0, 1.0], seed=0)
    np.testing.assert_allclose(shown, measured.returns[0, :, 0], rtol=1e-5)


def test_a_path_ends_where_its_episode_does() -> None:
    experiment = replace(NAVIGATION, task=Navigation(variant="corner", horizon=10, max_step=0.2))
    state = initial_progress(experiment).learner_state
    env = experiment.make_env(1, 4, stream="video resets")
    for _, states, _, _ in video.record(experiment, state, env, torch.tensor([2.0, -2.0]), adapt_steps=1):
        assert states.shape == (11, 2 + 2 + 1)
        moves, actions = np.diff(states[:, :2], axis=0), states[1:, 2:4]
        np.testing.assert_allclose(moves, 0.2 * actions.clip(-1, 1), atol=1e-6)  # a jump to the next start were no step


def test_episodes_are_named_after_what_came_before_them() -> None:
    assert labels(NAVIGATION, 2) == ["before", "1 step", "2 steps"]
    assert labels(replace(NAVIGATION, learner=replace(MAML(), adapt_steps=0)), 1)[1] == "1 step"
    assert labels(REMEMBERING, 3) == ["episode 1", "episode 2", "episode 3"]
    assert labels(MDP, 2) == ["episode 1", "episode 2"]
    assert labels(BANDIT, 9) == ["pulls 1–4", "pulls 5–9"]


def labels(experiment: Experiment, adapt_steps: int) -> list[str]:
    state = initial_progress(experiment).learner_state
    (task,) = experiment.task.sample(1, stream(0, "tasks"))
    env = experiment.make_env(1, 1, stream="video resets")
    return [episode.label for episode in video.record(experiment, state, env, task, adapt_steps)]


@pytest.mark.parametrize(
    "task",
    [
        Navigation(horizon=20),  # episodes that end early
        HalfCheetahDir(horizon=10, control_cost=0.0),
        TabularMDP(states=4, actions=3, horizon=5),
        Bandit(arms=3),
    ],
    ids=lambda task: task.name,
)
def test_a_trial_is_filmed_as_it_is_tested(monkeypatch: pytest.MonkeyPatch, task: TaskDistribution) -> None:
    monkeypatch.setattr(navigation, "GOAL_TOLERANCE", 0.15)
    experiment = replace(REMEMBERING, task=task)
    state = initial_progress(experiment).learner_state
    (parameter,) = task.sample(1, stream(5, "tasks"))
    envs = [experiment.make_env(1, 1, stream="video resets") for _ in range(2)]
    episodes = video.record(experiment, state, envs[0], parameter, adapt_steps=6)
    monkeypatch.setattr(evaluate, "stream", lambda *_, **__: stream(experiment.seed, "video actions"))
    measured = evaluate.meta_test(experiment.learner, state, envs[1], parameter[None], episodes=6, seed=0)
    expected = measured.returns[0, :, 0].numpy().reshape(len(episodes), -1).sum(1)  # a bandit's by halves
    np.testing.assert_allclose([episode.returns[-1] for episode in episodes], expected, rtol=1e-5)
    lengths = [len(episode.returns) - 1 for episode in episodes]
    assert [len(episode.states) for episode in episodes] == [
        length + (task.name != "half_cheetah_dir") for length in lengths
    ]
    if task.name == "navigation":
        away = [np.abs(episode.states[:, :2] - parameter.numpy()).max(1) for episode in episodes]
        assert min(lengths) < max(lengths)
        for distance, length in zip(away, lengths, strict=True):
            assert (distance[:-1] >= 0.15).all()
            assert distance[-1] < 0.15 or length == 20
    if task.name == "half_cheetah_dir":
        for episode in episodes:
            moved = episode.states[:, 0] - episode.states[0, 0]
            np.testing.assert_allclose(np.abs(episode.returns[:-1]), np.abs(moved) / 0.05, atol=1e-5)


def test_memory_is_fed_what_happened_before_the_border_of_an_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[Previous] = []
    act = RL2.act

    def spy(learner: RL2, actor: RL2Actor, obs: torch.Tensor, previous: Previous, generator: torch.Generator) -> tuple:
        assert (actor.memory is None) == (not fed)
        fed.append(previous)
        return act(learner, actor, obs, previous, generator)

    monkeypatch.setattr(RL2, "act", spy)
    state = initial_progress(MDP).learner_state
    (task,) = MDP.task.sample(1, stream(0, "tasks"))
    episodes = video.record(MDP, state, MDP.make_env(1, 1, stream="video resets"), task, adapt_steps=3)
    previous = Previous(*(torch.stack(x)[:, 0, 0] for x in zip(*fed, strict=True)))
    assert previous.truncated.nonzero().flatten().tolist() == [5, 10]
    rewards = np.concatenate([np.diff(episode.returns) for episode in episodes])
    np.testing.assert_allclose(previous.reward, [0.0, *rewards[:-1]], atol=1e-5)
    actions = np.concatenate([episode.states[1:, 4:7] for episode in episodes])
    np.testing.assert_array_equal(previous.action, [[0.0] * 3, *actions[:-1]])


def test_navigation_is_drawn(tmp_path: Path) -> None:
    run = make_run(NAVIGATION, tmp_path)
    mp4, gif = video.render_run(run, task_index=2)
    assert mp4 == run / "videos" / "navigation-task2.mp4"
    assert gif.stat().st_size < video.GIF_BYTES
    check_film(read_mp4(mp4))
    check_film(imageio.imread(gif))


@pytest.mark.parametrize("experiment", [REMEMBERING, BANDIT, MDP], ids=lambda experiment: experiment.task.name)
def test_trials_are_drawn(tmp_path: Path, experiment: Experiment) -> None:
    run = make_run(experiment, tmp_path)
    mp4, gif = video.render_run(run)
    frames = read_mp4(mp4)
    check_film(frames)
    check_film(imageio.imread(gif))
    num_steps, fps = {"navigation": (10, 20), "bandit": (5, 3), "tabular_mdp": (5, 3)}[experiment.task.name]
    assert len(frames) == num_steps + 1 + fps  # the last one for a second


def test_a_bandit_shows_every_pull() -> None:
    """Black for each payoff, in the bar of its arm."""
    pulls = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 1], [1, 1, 0, 0, 1], [1, 0, 0, 1, 0]], float)
    scene = scenes.find_scene(BANDIT, torch.tensor([0.9, 0.5, 0.1]), num_steps=3)
    pictures = [picture for (picture,) in scene.panels([pulls], range(4), video.WIDTH, video.HEIGHT)]
    assert all(picture.shape == (video.HEIGHT, video.WIDTH, 3) for picture in pictures)
    accent, ink, pale = (
        [(np.abs(picture - np.array(ImageColor.getrgb(color), float)).max(2) < 3).sum() for picture in pictures]
        for color in (scenes.ACCENT, scenes.INK, scenes.PALE)
    )
    assert ink[0] < ink[1] < ink[2]
    assert abs(ink[3] - ink[2]) < 200  # the last one paid nothing
    assert pale[2] - pale[1] < 200 < pale[3] - pale[2]
    assert accent[0] < accent[1]  # nothing was pulled yet


def test_an_mdp_shows_every_step() -> None:
    states = np.zeros((3, 4 + 3 + 1))
    states[[0, 1, 2], [0, 2, 2]] = 1
    states[[1, 2], [4 + 1, 4 + 2]] = 1  # action 1 in state 0, action 2 in state 2
    scene = scenes.find_scene(MDP, torch.rand(4, 3, 5), num_steps=2)
    pictures = np.array([p for (p,) in scene.panels([states], range(3), video.WIDTH, video.HEIGHT)], float)
    changed = [np.argwhere(np.abs(b - a).max(2) > 50)[:, 1] / video.WIDTH for a, b in itertools.pairwise(pictures)]
    column = 0.71 / 4
    assert 0.08 < changed[0].min() < 0.1 + column  # the box leaves state 0
    assert changed[1].max() < 0.1 + 3 * column  # state 2 stays, the last action moves there


def test_a_cheetah_is_drawn(tmp_path: Path) -> None:
    if camera.find_backend() is None:
        pytest.skip(camera.MISSING)
    run = make_run(CHEETAH, tmp_path)
    mp4, gif = video.render_run(run, adapt_steps=3, seconds=0.5, out=tmp_path / "film")
    frames = read_mp4(mp4)
    check_film(frames)
    assert len(frames) == 0.5 * 10  # 20 steps a second, at half speed
    assert gif.parent == tmp_path / "film"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))


def test_a_world_of_many_models_is_posed_as_the_same_task_alone(own_cache: None) -> None:
    task = MT10()
    tasks = task.published_tasks(10)[[4, 0, 4, 1]]
    tasks[2] = task.published_tasks(20)[9]  # another goal of the same environment
    mixed, alone = task.make(4, 1, seed=0), task.make(1, 1, seed=0)
    mixed.set_tasks(tasks)
    mixed.reset()
    for world in range(4):
        alone.set_tasks(tasks[world : world + 1])
        alone.reset()
        torch.testing.assert_close(mixed.worlds.pose(world), alone.worlds.pose(0), rtol=0, atol=0)


def test_an_arm_is_recorded_and_stays_solved(own_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = itertools.count(1)
    drawer, horizon = type(SAWYER["drawer-open-v3"]), DRAWER.task.horizon
    monkeypatch.setattr(drawer, "success", lambda *_: torch.full((4,), next(steps) % horizon == 3))
    state = initial_progress(DRAWER).learner_state
    env = DRAWER.make_env(1, 4, stream="video resets")
    before, after = video.record(DRAWER, state, env, DRAWER.task.published_tasks(1)[0], adapt_steps=1)
    np.testing.assert_array_equal(before.states[0], after.states[0])
    for episode in (before, after):
        assert len(episode.states) == 6
        assert episode.solved.tolist() == [False] * 3 + [True] * 4


@pytest.fixture
def graphics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked for once a test."""
    backend = camera.find_backend()
    if backend is None:
        pytest.skip(camera.MISSING)
    monkeypatch.setattr(camera, "find_backend", lambda: backend)


def test_a_drawer_is_drawn_the_right_way_up_where_its_goal_puts_it(own_cache: None, graphics: None) -> None:
    (goal,) = DRAWER.task.published_tasks(1)
    pictures = []
    for x, lift in ((-0.1, 0.0), (0.1, 0.0), (-0.1, 0.1)):
        goal[1:4] = torch.tensor([x, 0.9, lift])
        scene = scenes.find_scene(DRAWER, goal, num_steps=6)
        env = DRAWER.make_env(1, 1, stream="video resets")
        env.set_tasks(goal[None])
        env.reset()
        pose = env.worlds.pose(0)[None].numpy()
        pictures += [picture for (picture,) in scene.panels([pose], [0], video.WIDTH, video.HEIGHT)]
    green = [np.argwhere(picture[..., 1] > picture[..., [0, 2]].max(2) + 20.0) for picture in pictures]
    (row, column), (_, further_right), (higher, _) = (pixels.mean(0) for pixels in green)  # of drawer and goal
    assert min(map(len, green)) > 2000
    assert higher < row - 10
    assert further_right > column + 10
    table = np.abs(pictures[0] - np.array([200.0, 190.0, 175.0])).max(2) < 30
    assert table[video.HEIGHT // 2 :].mean() > 0.4 > table[: video.HEIGHT // 2].mean()


def test_an_arm_is_filmed_until_it_succeeds(
    tmp_path: Path, own_cache: None, graphics: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(SAWYER["drawer-open-v3"]), "success_radius", 1.0)
    mp4, _ = video.render_run(make_run(DRAWER, tmp_path))
    frames = read_mp4(mp4)
    check_film(frames)
    assert len(frames) == 3 + 1 + 20  # every second of 80 steps a second, at half speed; the last one for a second
    header = frames[[0, -1], : video.HEADER].astype(float)
    solved = np.abs(header - np.array(ImageColor.getrgb(scenes.SOLVED), float)).max(-1) < 40
    assert not solved[0].any()
    for panel in (solved[1, :, : video.WIDTH], solved[1, :, -video.WIDTH :]):
        assert panel.any()


def check_film(frames: np.ndarray) -> None:
    """The pictures below the header move, and the two episodes differ in the end."""
    height, width = frames.shape[1:3]
    pictures = frames[:, height * video.HEADER // (video.HEADER + video.HEIGHT) + 2 :].astype(float)
    assert np.abs(pictures[0] - pictures[-1]).max() > 50
    half = width * video.WIDTH // (2 * video.WIDTH + video.DIVIDER)
    left, right = pictures[-1, :, :half], pictures[-1, :, -half:]
    assert np.abs(left - right).max() > 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_index": 3}, "task is 3: use 0 to 2"),
        ({"adapt_steps": 0}, "steps is 0: use at least 1"),
        ({"seconds": 0.0}, "seconds is 0.0: use a positive number"),
        ({"out": Path(__file__)}, "choose a folder"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: dict, message: str) -> None:
    run = make_run(NAVIGATION, tmp_path)
    with pytest.raises(ValueError, match=message):
        video.render_run(run, **options)


def test_a_trial_has_a_last_episode_besides_the_first(tmp_path: Path) -> None:
    run = make_run(REMEMBERING, tmp_path)
    with pytest.raises(ValueError, match="steps is 1: use at least 2"):
        video.render_run(run, adapt_steps=1)


@pytest.mark.parametrize("experiment", [NAVIGATION, BANDIT, MDP], ids=lambda experiment: experiment.task.name)
def test_a_task_of_another_shape_is_refused(experiment: Experiment) -> None:
    with pytest.raises(ValueError, match=r"only MuJoCo tasks, .* bandits, tabular MDPs and points on a plane"):
        scenes.find_scene(experiment, torch.tensor(1.0), num_steps=10)


@pytest.mark.parametrize(
    "folder", ["02:36-clips", "file:x", "a b", "ü$x$", "-dash", "100%d", "clips.zip", "~", "[/b]", 'it\'s "it"']
)
def test_fault_30_a_folder_may_have_any_name(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, as typed: ffmpeg has protocols before a colon, options, patterns; imageio has homes and archives."""
    run = make_run(NAVIGATION, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(video, "GIF_SIZES", ((5.0, 320),))
    paths = video.render_run(run, out=Path(folder), seconds=0.1)
    assert paths == [Path(folder) / f"navigation-task0.{kind}" for kind in ("mp4", "gif")]
    assert paths[0].read_bytes()[4:8] == b"ftyp"
    assert paths[1].read_bytes().startswith(b"GIF8")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["tiny", Path(folder).parts[0]])
