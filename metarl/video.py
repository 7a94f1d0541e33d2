"""A video of one held-out task: an episode before adaptation beside one after it."""

import math
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v2 as imageio
import matplotlib
import numpy as np
import torch
from imageio.plugins.ffmpeg import get_exe
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metarl.evaluate import held_out_tasks
from metarl.evaluate_run import load_progress
from metarl.experiment import Experiment, load_experiment
from metarl.gl import Bodies, Picture
from metarl.rollout import rollout
from metarl.streams import stream

WIDTH, HEIGHT = 480, 400  # pixels of a panel
HEADER, MARGIN, DIVIDER = 68, 14, 4  # pixels; the header is a line about the video and one about each panel
INK, FAINT, GRID, PAPER, ACCENT = "#1b1b1b", "#707070", "#e6e6e6", "#ffffff", "#c8553d"
FONT = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size=16)
MAX_FPS = 50.0
HOLD = 1.0  # seconds that the last frame stays
GIF_BYTES, GIF_SECONDS = 2_000_000, 10.0
GIF_SIZES = ((20.0, 800), (12.5, 640), (10.0, 480), (5.0, 320))  # frames a second and width, until it fits


class Episode(NamedTuple):
    """What world 0 did in one episode."""

    label: str
    """Whose episode it is, for the reader."""
    states: NDArray[np.float64]
    """What a scene draws [state, ...]: qpos before each step, or the observations along the way."""
    returns: NDArray[np.float64]
    """Sum of the rewards so far: 0, then after each step."""


def render_run(
    run: Path,
    *,
    task_index: int = 0,
    adapt_steps: int | None = None,
    seconds: float | None = None,
    out: Path | None = None,
) -> list[Path]:
    """Films one held-out task with a run's newest checkpoint: before adaptation (left) and after it (right).

    Both episodes are those of world 0 in the very batches that adaptation plays, by the sampled policy, whose
    returns training and evaluation report. MuJoCo tasks play in real time, or at half speed where an episode
    lasts less than 3 simulated seconds; others play 20 steps a second. The GIF has at most 2 MB and 10 s.

    Args:
        task_index: which of the run's held-out tasks.
        adapt_steps: inner steps between the two episodes; by default the learner's own, at least 1.
        seconds: where the video is cut, in its own time; by default nowhere.
        out: the folder to write to; by default ``videos`` in the run.

    Returns:
        The paths of the .mp4 and the .gif.

    Raises:
        ValueError: an option out of range, not a run folder, or a task that nothing here can draw.
        NoGraphics: (a ValueError) a MuJoCo task on a machine without OpenGL.
        CheckpointError: the run has no usable checkpoint.
    """
    experiment = load_experiment(run)
    tasks = held_out_tasks(experiment.task, experiment.eval_tasks)
    adapt_steps = max(1, experiment.learner.adapt_steps) if adapt_steps is None else adapt_steps
    if not 0 <= task_index < len(tasks):
        raise ValueError(f"task_index is {task_index}: use 0 to {len(tasks) - 1}, the held-out tasks of this run")
    if adapt_steps < 1:
        raise ValueError(f"adapt_steps is {adapt_steps}: use at least 1")
    if seconds is not None and seconds <= 0:
        raise ValueError(f"seconds is {seconds}: use a positive number")
    task = tasks[task_index]
    scene = find_scene(experiment, task)

    env = experiment.make_env(1, experiment.episodes, stream="video resets")
    progress = load_progress(experiment, run, print)
    before, *_, after = record(experiment, progress.learner_state, env, task, adapt_steps)

    parameter = ", ".join(f"{value:.3g}" for value in task.flatten().tolist()).replace("-", "−")
    title = f"{experiment.task.name} · task {task_index} ({parameter}) · {progress.iteration} meta-updates"
    folder = run / "videos" if out is None else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out is {folder} ({error.strerror}): choose a folder that can be written") from error
    mp4 = folder / f"{experiment.task.name}-task{task_index}.mp4"
    _write_mp4(mp4, scene, (before, after), title, seconds)
    return [mp4, _write_gif(mp4)]


def record(experiment: Experiment, state: Any, env: Any, task: Float[Tensor, "..."], adapt_steps: int) -> list[Episode]:
    """World 0 before any inner step and after each, adapting as :func:`metarl.evaluate.meta_test` does."""
    learner = experiment.learner
    generator = stream(experiment.seed, "video actions", device=experiment.device)
    unit = "gradient step" if learner.adapt_steps else "episode"  # memory adapts as it plays
    physics = getattr(env.worlds, "physics", None)
    poses: list[Tensor] = []

    def act(*arguments: Any) -> Any:
        if physics is not None:  # before the step, which at its end may begin the next episode
            poses.append(physics.bind("qpos")[0].clone())
        return learner.act(*arguments)

    env.set_tasks(task[None])
    actor, episodes = learner.actor(state, 1), []
    for step in range(adapt_steps + 1):
        poses.clear()
        batch, actor = rollout(env, act, actor, 1, generator)
        length = max(1, int(batch.valid[0, 0].sum()))
        path = torch.cat([batch.obs[0, 0, :length], batch.next_obs[0, 0, length - 1 : length]])
        states = path if physics is None else torch.stack(poses[:length])
        rewards = (batch.reward * batch.valid)[0, 0, :length].double().cpu().numpy()
        label = f"after {step} {unit}{'s' * (step > 1)}" if step else "before adaptation"
        episodes.append(Episode(label, states.double().cpu().numpy(), np.cumsum([0.0, *rewards])))
        if step < adapt_steps:
            actor = learner.adapt(state, actor, learner.credit(state, batch))
    return episodes


class Path2D:
    """A scene: the way of a point, and the goal that it does not see."""

    steps_per_second = 20.0

    def __init__(self, goal: Float[np.ndarray, " 2"]) -> None:
        self._goal = goal

    def clock(self, step: int) -> str:
        return f"step {step}"

    def panels(
        self, episodes: Sequence[NDArray[np.float64]], steps: Sequence[int], width: int, height: int
    ) -> Iterator[list[Picture]]:
        """Draws positions [state, 2] of each episode, all on one scale."""
        low, high = (f([*np.concatenate(episodes), self._goal], axis=0) for f in (np.min, np.max))
        center, reach = (low + high) / 2, 0.55 * (high - low).max()
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.08, 0.86, 0.89), aspect="equal")
        axes.set(xlim=center[0] + [-reach, reach], ylim=center[1] + [-reach, reach])
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.plot(*self._goal, "*", color=ACCENT, markersize=18, markeredgewidth=0)
        (trail,) = axes.plot([], [], color=INK, linewidth=1.5, alpha=0.6)
        (start,) = axes.plot([], [], "o", color=PAPER, markeredgecolor=FAINT, markersize=8)
        (point,) = axes.plot([], [], "o", color=INK, markersize=8)
        for step in steps:
            pictures = []
            for path in episodes:
                past = path[: step + 1]
                trail.set_data(*past.T)
                start.set_data(*past[:1].T)
                point.set_data(*past[-1:].T)
                canvas.draw()
                pictures.append(np.array(canvas.buffer_rgba())[:, :, :3])
            yield pictures


def find_scene(experiment: Experiment, task: Float[Tensor, "..."]) -> Bodies | Path2D:
    """Bodies where the task has a MuJoCo model, a path where it is a point on a plane; else a ValueError."""
    if hasattr(experiment.task, "model"):
        return Bodies(experiment.task)
    if experiment.task.spec.obs_dim == 2 and task.shape == (2,):
        return Path2D(task.cpu().numpy())
    raise ValueError(f"task is {experiment.task.name!r}: only MuJoCo tasks and points on a plane can be drawn")


def _write_mp4(
    path: Path, scene: Bodies | Path2D, episodes: Sequence[Episode], title: str, seconds: float | None
) -> None:
    """Plays the episodes together until the longer one is over, and for a moment shows how they ended."""
    stride = math.ceil(scene.steps_per_second / MAX_FPS)
    fps = scene.steps_per_second / stride
    last = max(len(episode.returns) for episode in episodes) - 1
    steps = [*range(0, last, stride), *[last] * round(1 + HOLD * fps)]
    if seconds is not None:
        steps = steps[: math.ceil(seconds * fps)]
    pictures = scene.panels([episode.states for episode in episodes], steps, WIDTH, HEIGHT)
    with closing(imageio.get_writer(path, fps=fps, codec="libx264", quality=7, macro_block_size=2)) as writer:
        for step, panels in zip(steps, pictures, strict=True):
            writer.append_data(_page(title, scene.clock(step), step, panels, episodes))


def _page(title: str, clock: str, step: int, panels: Sequence[Picture], episodes: Sequence[Episode]) -> Picture:
    """One frame: a header over a panel for each episode."""
    page = Image.new("RGB", (len(panels) * (WIDTH + DIVIDER) - DIVIDER, HEADER + HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 10), title, FAINT, FONT)
    draw.text((page.width - MARGIN, 10), clock, FAINT, FONT, anchor="ra")
    for position, (panel, episode) in enumerate(zip(panels, episodes, strict=True)):
        left = position * (WIDTH + DIVIDER)
        total = f"return {episode.returns[min(step, len(episode.returns) - 1)]:.1f}".replace("-", "−")
        page.paste(Image.fromarray(panel), (left, HEADER))
        draw.text((left + MARGIN, 38), episode.label, INK, FONT)
        draw.text((left + WIDTH - MARGIN, 38), total, INK, FONT, anchor="ra")
    return np.asarray(page)


def _write_gif(mp4: Path) -> Path:
    """The first seconds of a video as a GIF beside it, smaller and slower until it has at most 2 MB."""
    gif = mp4.with_suffix(".gif")
    source = [get_exe(), "-y", "-t", str(GIF_SECONDS), "-i", str(mp4)]
    palette = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
    for fps, width in GIF_SIZES:
        graph = f"fps={fps},scale={width}:-2:flags=lanczos,{palette}"
        subprocess.run([*source, "-filter_complex", graph, str(gif)], check=True, capture_output=True)
        if gif.stat().st_size <= GIF_BYTES:
            break
    return gif
