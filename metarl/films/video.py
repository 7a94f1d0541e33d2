"""A video of one held-out task: an episode before adaptation beside one after it, or the first beside the last."""

import math
import subprocess
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v2 as imageio
import matplotlib
import numpy as np
import torch
from imageio.plugins.ffmpeg import get_exe
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metarl.envs.camera import PicturedWorlds, VisibleWorlds
from metarl.evaluate import adaptation, held_out_tasks
from metarl.films.bodies import Picture
from metarl.films.scenes import FAINT, INK, PAPER, SOLVED, Scene, find_scene
from metarl.runs.experiment import Experiment
from metarl.runs.folder import load_experiment
from metarl.runs.snapshot import load_progress
from metarl.seeds import stream
from metarl.types import TrajectoryBatch, inner_scales, remembers

WIDTH, HEIGHT = 480, 400  # pixels of a panel
HEADER, MARGIN, DIVIDER = 68, 14, 4  # pixels; the header is a line about the video and one about each panel
FONT = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size=16)
MAX_FPS = 30.0
HOLD = 1.0  # seconds that the last frame stays
GIF_BYTES, GIF_SECONDS = 2_000_000, 10.0
GIF_SIZES = ((20.0, 800), (12.5, 640), (10.0, 480), (5.0, 320))  # frames a second and width, until it fits


class Episode(NamedTuple):
    """What world 0 did in one episode."""

    label: str
    """Whose episode it is, for the reader."""
    states: NDArray[Any]
    """What a scene draws [state, ...], see :class:`metarl.films.scenes.Scene`; of bodies and pictures one before each
    step, else also the last."""
    returns: NDArray[np.float64]
    """Sum of the rewards so far: 0, then after each step."""
    solved: NDArray[np.bool_]
    """Whether the task was solved so far: False, then after each step."""


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
    returns training and evaluation report; of a learner that remembers, the first and the last of one trial, or its
    halves where an episode is a single step. MuJoCo tasks play in real time, or at half speed where an episode lasts
    less than 3 simulated seconds; others play 20 steps a second, or slower. The GIF has at most 2 MB and 10 s.

    Args:
        task_index: which of the run's held-out tasks.
        adapt_steps: inner steps between the two episodes, at least 1; or the number of the last episode, at least 2.
            By default as many as in training.
        seconds: where the video is cut, in its own time; by default nowhere.
        out: the folder to write to; by default ``videos`` in the run.

    Returns:
        The paths of the .mp4 and the .gif.

    Raises:
        ValueError: an option out of range, not a run folder, or a task that nothing here can draw.
        NoGraphics: (a ValueError) a MuJoCo task on a machine without OpenGL.
        CheckpointError: the run has no usable checkpoint.
    """
    experiment = load_experiment(run, device="cpu")
    tasks = held_out_tasks(experiment.task, experiment.eval_tasks)
    horizon, stages = experiment.task.horizon, experiment.stages()
    in_trials = remembers(experiment.learner)
    least, usual = (2, len(stages)) if in_trials else (1, len(stages) - 1)
    adapt_steps = max(least, usual) if adapt_steps is None else adapt_steps
    if not 0 <= task_index < len(tasks):
        raise ValueError(f"task is {task_index}: use 0 to {len(tasks) - 1}, the held-out tasks of this run")
    if adapt_steps < least:
        raise ValueError(f"steps is {adapt_steps}: use at least {least}")
    if seconds is not None and seconds <= 0:
        raise ValueError(f"seconds is {seconds}: use a positive number")
    task = tasks[task_index]
    scene = find_scene(experiment, task, num_steps=horizon if horizon > 1 else adapt_steps // 2)

    env = experiment.make_env(1, 1 if in_trials else experiment.episodes, stream="video resets")
    progress = load_progress(experiment, run, print)
    before, *_, after = record(experiment, progress.learner_state, env, task, adapt_steps)

    words = experiment.task.in_words(task).replace("-", "−")
    parts = (experiment.task.name, f"held-out task {task_index}", words, f"{progress.iteration} meta-updates")
    title = " · ".join(part for part in parts if part)
    folder = run / "videos" if out is None else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out is {folder} ({error.strerror}): choose a folder that can be written") from error
    mp4 = folder / f"{experiment.task.name}-task{task_index}.mp4"
    _write_mp4(mp4, scene, (before, after), title, seconds)
    return [mp4, _write_gif(mp4)]


def record(experiment: Experiment, state: Any, env: Any, task: Float[Tensor, "..."], adapt_steps: int) -> list[Episode]:
    """World 0 before any inner step and after each, or in each of ``adapt_steps`` episodes of one trial.

    In place of episodes of a single step, the pulls of a bandit, stand the two halves of the trial.
    """
    learner = experiment.learner
    stages = learner.stages(adapt_steps, steps=adapt_steps)
    trial = stages[-1].episodes
    halves = experiment.task.horizon == 1 and trial > 1
    generator = stream(experiment.seed, "video actions", device=experiment.device)
    poses: list[Tensor] = []

    def act(*arguments: Any) -> Any:
        worlds = getattr(env, "worlds", None)
        if isinstance(worlds, VisibleWorlds):  # before the step, which at its end may begin the next episode
            poses.append(worlds.pose(0))
        elif isinstance(worlds, PicturedWorlds):
            poses.append(torch.from_numpy(worlds.picture(0)))
        return learner.act(*arguments)

    clips = []
    for batch in adaptation(learner, state, env, task[None], act, inner_scales(stages), trial, generator):
        ended = (batch.terminated | batch.truncated)[0, 0].nonzero()[:trial, 0] + 1
        borders = [0, trial // 2, trial] if halves else [0, *ended.tolist()]
        clips += [_clip(batch, poses, begin, end) for begin, end in pairwise(borders)]
        poses.clear()
    labels = [stage.label for stage in stages]
    if halves:
        labels = [f"pulls 1–{trial // 2}", f"pulls {trial // 2 + 1}–{trial}"]
    return [Episode(label, *clip) for label, clip in zip(labels, clips, strict=True)]


def _clip(
    batch: TrajectoryBatch, poses: list[Tensor], begin: int, end: int
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
    """What world 0 did from step ``begin`` to before ``end``; a last step that diverged is left out."""
    end = begin + max(1, int(batch.valid[0, 0, begin:end].sum()))
    obs, action, reward, valid, next_obs = (
        x[0, 0, begin:end] for x in (batch.obs, batch.action, batch.reward, batch.valid, batch.next_obs)
    )
    reward = reward.where(valid, 0.0)
    if poses:
        states = torch.stack(poses[begin:end])
    else:
        led = torch.nn.functional.pad(torch.cat([action, reward[:, None]], dim=1), (0, 0, 1, 0))
        states = torch.cat([torch.cat([obs, next_obs[-1:]]), led], dim=1)
    returns = np.cumsum([0.0, *reward.double().cpu().numpy()])
    solved = np.logical_or.accumulate([False, *batch.success[0, 0, begin:end].cpu().numpy()])
    return (states if states.dtype == torch.uint8 else states.double()).cpu().numpy(), returns, solved


def _write_mp4(path: Path, scene: Scene, episodes: Sequence[Episode], title: str, seconds: float | None) -> None:
    """Plays the episodes together until the longer one is over, and for a moment shows how they ended.

    Here and below ffmpeg is given absolute paths: in others it takes what stands before a colon for a protocol, a
    leading dash for an option, and imageio a leading ~ for a home.
    """
    stride = math.ceil(scene.steps_per_second / MAX_FPS)
    fps = scene.steps_per_second / stride
    last = max(len(episode.returns) for episode in episodes) - 1
    steps = [*range(0, last, stride), *[last] * round(1 + HOLD * fps)]
    if seconds is not None:
        steps = steps[: math.ceil(seconds * fps)]
    shown = list(dict.fromkeys(steps))
    pictures = scene.panels([episode.states for episode in episodes], shown, WIDTH, HEIGHT)
    with closing(
        imageio.get_writer(path.absolute(), fps=fps, codec="libx264", quality=7, macro_block_size=2)
    ) as writer:
        for step, panels in zip(shown, pictures, strict=True):
            page = _page(title, scene.clock(step), step, panels, episodes)
            for _ in range(steps.count(step)):
                writer.append_data(page)


def _page(title: str, clock: str, step: int, panels: Sequence[Picture], episodes: Sequence[Episode]) -> Picture:
    """One frame: a header over a panel for each episode."""
    page = Image.new("RGB", (len(panels) * (WIDTH + DIVIDER) - DIVIDER, HEADER + HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 10), title, FAINT, FONT)
    draw.text((page.width - MARGIN, 10), clock, FAINT, FONT, anchor="ra")
    for position, (panel, episode) in enumerate(zip(panels, episodes, strict=True)):
        left = position * (WIDTH + DIVIDER)
        now = min(step, len(episode.returns) - 1)
        total = f"return {episode.returns[now]:.1f}".replace("-", "−")
        page.paste(Image.fromarray(panel), (left, HEADER))
        draw.text((left + MARGIN, 38), episode.label, INK, FONT)
        if episode.solved[now]:
            draw.text((left + 2 * MARGIN + draw.textlength(episode.label, FONT), 38), "solved", SOLVED, FONT)
        draw.text((left + WIDTH - MARGIN, 38), total, INK, FONT, anchor="ra")
    return np.asarray(page)


def _write_gif(mp4: Path) -> Path:
    """The first seconds of a video as a GIF beside it, smaller and slower until it has at most 2 MB."""
    gif = mp4.with_suffix(".gif")
    source = [get_exe(), "-y", "-t", str(GIF_SECONDS), "-i", str(mp4.absolute())]
    palette = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
    for fps, width in GIF_SIZES:
        graph = f"fps={fps},scale={width}:-2:flags=lanczos,{palette}"
        subprocess.run([*source, "-filter_complex", graph, str(gif.absolute())], check=True, capture_output=True)
        if gif.stat().st_size <= GIF_BYTES:
            break
    return gif
