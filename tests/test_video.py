"""metarl video: what is recorded, what is drawn, and machines that cannot draw."""

import subprocess
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from imageio.plugins.ffmpeg import get_exe

from envs.half_cheetah_dir import HalfCheetahDir
from envs.navigation import Navigation
from metarl import checkpoint, evaluate, gl, video
from metarl.algorithms.maml import MAML
from metarl.experiment import Experiment, create_run
from metarl.policies import GaussianMLP
from metarl.run import capture, initial_progress
from metarl.streams import stream

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


def make_run(experiment: Experiment, folder: Path) -> Path:
    """A run stopped before its first iteration."""
    run = create_run(experiment, folder, "tiny")
    env = experiment.make_env(experiment.num_tasks, experiment.num_envs, stream="resets")
    checkpoint.save_iteration(run / "checkpoints", 0, capture(initial_progress(experiment, env.spec), env))
    return run


def read_mp4(path: Path) -> np.ndarray:
    """Frames [frame, height, width, RGB]; imageio's own reader leaves its pipes open."""
    command = [get_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    size = (video.HEADER + video.HEIGHT, 2 * video.WIDTH + video.DIVIDER)
    return np.frombuffer(raw, np.uint8).reshape(-1, *size, 3)


@pytest.fixture
def no_graphics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "PROBE", "raise SystemExit(1)")


@pytest.mark.parametrize("asked", ["osmesa", "nonsense", ""])
def test_a_backend_that_cannot_work_is_passed_over(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("MUJOCO_GL", asked)
    monkeypatch.setenv("PYOPENGL_PLATFORM", "egl")  # makes importing mujoco's osmesa fail, as missing libraries do
    assert gl.find_backend() in (None, "egl")


def test_without_graphics_the_packages_are_named(no_graphics: None) -> None:
    assert gl.find_backend() is None
    with pytest.raises(gl.NoGraphics, match="libosmesa6, or libegl1 libgl1 libgl1-mesa-dri") as error:
        gl.use_backend()
    assert "\n" not in str(error.value)


def test_without_graphics_a_cheetah_is_refused_before_any_work(tmp_path: Path, no_graphics: None) -> None:
    run = create_run(CHEETAH, tmp_path, "untrained")  # a checkpoint is not even looked for
    with pytest.raises(gl.NoGraphics):
        video.render_run(run)


def test_recorded_poses_belong_to_the_episode_whose_return_is_shown() -> None:
    state = initial_progress(CHEETAH, CHEETAH.task.spec).learner_state
    env = CHEETAH.make_env(1, 4, stream="video resets")
    before, between, after = video.record(CHEETAH, state, env, torch.tensor(-1.0), adapt_steps=2)
    step_seconds = 0.05
    for episode in (before, between, after):
        moved = episode.states[:, 0] - episode.states[0, 0]
        np.testing.assert_allclose(episode.returns[:-1], -moved / step_seconds, atol=1e-5)
        assert len(episode.returns) == CHEETAH.task.horizon + 1


def test_the_film_shows_what_meta_testing_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    state, task = initial_progress(CHEETAH, CHEETAH.task.spec).learner_state, torch.tensor(1.0)
    envs = [CHEETAH.make_env(1, 4, stream="video resets") for _ in range(2)]
    shown = [episode.returns[-1] for episode in video.record(CHEETAH, state, envs[0], task, adapt_steps=2)]
    monkeypatch.setattr(evaluate, "stream", lambda *_, **__: stream(CHEETAH.seed, "video actions"))
    measured = evaluate.meta_test(CHEETAH.learner, state, envs[1], task[None], scales=[1.0, 1.0], seed=0)
    np.testing.assert_allclose(shown, measured.returns[0, :, 0], rtol=1e-5)


def test_a_path_ends_where_its_episode_does() -> None:
    experiment = replace(NAVIGATION, task=Navigation(variant="corner", horizon=10, max_step=0.2))
    state = initial_progress(experiment, experiment.task.spec).learner_state
    env = experiment.make_env(1, 4, stream="video resets")
    for _, path, _ in video.record(experiment, state, env, torch.tensor([2.0, -2.0]), adapt_steps=1):
        assert path.shape == (11, 2)
        lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
        assert (lengths <= 0.2 * 2**0.5 + 1e-6).all()  # a jump to the next start would be no step


def test_navigation_is_drawn(tmp_path: Path) -> None:
    run = make_run(NAVIGATION, tmp_path)
    mp4, gif = video.render_run(run, task_index=2)
    assert mp4 == run / "videos" / "navigation-task2.mp4"
    assert gif.stat().st_size < video.GIF_BYTES
    check_film(read_mp4(mp4))
    check_film(imageio.imread(gif))


def test_a_cheetah_is_drawn(tmp_path: Path) -> None:
    if gl.find_backend() is None:
        pytest.skip(gl.MISSING)
    run = make_run(CHEETAH, tmp_path)
    mp4, gif = video.render_run(run, adapt_steps=3, seconds=0.5, out=tmp_path / "film")
    frames = read_mp4(mp4)
    check_film(frames)
    assert len(frames) == 0.5 * 10  # 20 steps a second, at half speed
    assert gif.parent == tmp_path / "film"


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
        ({"task_index": 3}, "task_index is 3: use 0 to 2"),
        ({"adapt_steps": 0}, "adapt_steps is 0: use at least 1"),
        ({"seconds": 0.0}, "seconds is 0.0: use a positive number"),
        ({"out": Path(__file__)}, "choose a folder"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: dict, message: str) -> None:
    run = make_run(NAVIGATION, tmp_path)
    with pytest.raises(ValueError, match=message):
        video.render_run(run, **options)


def test_a_task_without_model_or_plane_is_refused() -> None:
    with pytest.raises(ValueError, match="only MuJoCo tasks and points on a plane"):
        video.find_scene(NAVIGATION, torch.tensor(1.0))
