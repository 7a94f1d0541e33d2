"""What a video shows of a task: which scene draws it, and the scenes of tasks without a body."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from metarl.envs.camera import PicturedTask, VisibleTask
from metarl.films.bodies import Bodies, Picture
from metarl.runs.experiment import Experiment

INK, FAINT, GRID, PAPER, ACCENT = "#1b1b1b", "#707070", "#e6e6e6", "#ffffff", "#c8553d"
SOLVED = "#2e8b57"
PALE = "#b9c4cf"
REWARDS = LinearSegmentedColormap.from_list("rewards", ["#eef1f4", "#5f94c0"])  # pale enough for numbers in ink
SLOWEST = 3.0  # steps a second of bandits and MDPs, so that one can follow them
LONGEST = 8.0  # seconds; more steps than fit at that pace play faster
LEGEND = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3, "frameon": False, "fontsize": 9}


@runtime_checkable
class Scene(Protocol):
    """Draws episodes side by side. A state of an episode is the qpos of a model; a picture, of worlds that draw
    themselves; of other tasks the observation, and the action and the reward that led there (zeros in the first)."""

    steps_per_second: float

    def clock(self, step: int) -> str:
        """What time it is at that step."""

    def panels(
        self, episodes: Sequence[NDArray[Any]], steps: Sequence[int], width: int, height: int
    ) -> Iterator[list[Picture]]:
        """For each of ``steps`` a picture [height, width] of each episode [state, ...], which may be over by then."""


def find_scene(experiment: Experiment, task: Float[Tensor, "..."], num_steps: int) -> Scene:
    """The scene for a task parameter, by its shape and the spec; ``num_steps`` that a panel will show set the pace.

    Raises:
        ValueError: there is none.
        NoGraphics: (a ValueError) a MuJoCo task on a machine without OpenGL.
    """
    spec, parameter = experiment.task.spec, task.double().cpu().numpy()
    pace = max(SLOWEST, num_steps / LONGEST)
    if isinstance(experiment.task, VisibleTask):
        return Bodies(experiment.task, task)
    if isinstance(experiment.task, PicturedTask) and experiment.task.frames_per_second > 0:
        return Drawn(experiment.task.frames_per_second)
    if spec.discrete and parameter.shape == (spec.action_dim,):
        return Bandit(parameter, pace)
    if spec.discrete and parameter.shape == (spec.obs_dim, spec.action_dim, spec.obs_dim + 1):
        return MDP(parameter[..., -1], pace)
    if not spec.discrete and spec.obs_dim == 2 and parameter.shape == (2,):
        return Path2D(parameter)
    raise ValueError(
        f"task is {experiment.task.name!r}: only MuJoCo tasks, environments of Gymnasium built with render_mode "
        "rgb_array, bandits, tabular MDPs and points on a plane can be drawn"
    )


class Canvas:
    """A matplotlib figure of so many pixels, as a picture."""

    def __init__(self, width: int, height: int) -> None:
        self.figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        self._agg = FigureCanvasAgg(self.figure)

    def picture(self) -> Picture:
        self._agg.draw()
        return np.array(self._agg.buffer_rgba())[:, :, :3]


class Drawn:
    """What worlds that draw themselves showed."""

    def __init__(self, steps_per_second: float) -> None:
        self.steps_per_second = steps_per_second

    def clock(self, step: int) -> str:
        return f"{step / self.steps_per_second:.1f} s"

    def panels(
        self, episodes: Sequence[NDArray[np.uint8]], steps: Sequence[int], width: int, height: int
    ) -> Iterator[list[Picture]]:
        for step in steps:
            shown = [pictures[min(step, len(pictures) - 1)] for pictures in episodes]
            yield [np.asarray(ImageOps.pad(Image.fromarray(each), (width, height), color=PAPER)) for each in shown]


class Path2D:
    """The way of a point, and the goal that it does not see."""

    steps_per_second = 20.0

    def __init__(self, goal: Float[np.ndarray, " 2"]) -> None:
        self._goal = goal

    def clock(self, step: int) -> str:
        return f"step {step}"

    def panels(
        self, episodes: Sequence[NDArray[np.float64]], steps: Sequence[int], width: int, height: int
    ) -> Iterator[list[Picture]]:
        paths = [states[:, :2] for states in episodes]
        low, high = (f([*np.concatenate(paths), self._goal], axis=0) for f in (np.min, np.max))
        center, reach = (low + high) / 2, 0.55 * (high - low).max()
        canvas = Canvas(width, height)
        axes = canvas.figure.add_axes((0.1, 0.08, 0.86, 0.89), aspect="equal")
        axes.set(xlim=center[0] + [-reach, reach], ylim=center[1] + [-reach, reach])
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.plot(*self._goal, "*", color=ACCENT, markersize=18, markeredgewidth=0)
        (trail,) = axes.plot([], [], color=INK, linewidth=1.5, alpha=0.6)
        (start,) = axes.plot([], [], "o", color=PAPER, markeredgecolor=FAINT, markersize=8)
        (point,) = axes.plot([], [], "o", color=INK, markersize=8)
        for step in steps:
            pictures = []
            for path in paths:
                past = path[: step + 1]
                trail.set_data(*past.T)
                start.set_data(*past[:1].T)
                point.set_data(*past[-1:].T)
                pictures.append(canvas.picture())
            yield pictures


class Bandit:
    """The payoff probability of each arm, and below it how often it was pulled; the best arm stands out."""

    def __init__(self, probability: Float[np.ndarray, " arm"], steps_per_second: float) -> None:
        self._probability, self.steps_per_second = probability, steps_per_second

    def clock(self, step: int) -> str:
        return f"{step} pull{'s' * (step != 1)}"

    def panels(
        self, episodes: Sequence[NDArray[np.float64]], steps: Sequence[int], width: int, height: int
    ) -> Iterator[list[Picture]]:
        arms = np.arange(len(self._probability))
        pulls = [states[:, -1 - len(arms) : -1] for states in episodes]
        counts = [np.cumsum(pull, axis=0) for pull in pulls]
        wins = [np.cumsum(pull * states[:, -1:], axis=0) for pull, states in zip(pulls, episodes, strict=True)]
        canvas = Canvas(width, height)
        upper, lower = canvas.figure.subplots(2, sharex=True, height_ratios=(1, 2))
        canvas.figure.subplots_adjust(0.13, 0.12, 0.97, 0.98, hspace=0.3)
        colors = np.where(arms == self._probability.argmax(), ACCENT, PALE)
        upper.bar(arms, self._probability, color=colors)
        upper.set(ylim=(0, 1), yticks=(0, 0.5, 1), ylabel="P(payoff)")
        lower.set(ylim=(0, 1.12 * max(count[-1].max() for count in counts)), ylabel="pulls", xlabel="arm")
        lower.locator_params(nbins=8, steps=(1, 2, 5, 10), integer=True)
        pulled = lower.bar(arms, 0 * arms, color=PALE, label="no payoff")
        paid = lower.bar(arms, 0 * arms, color=INK, label="payoff")
        (now,) = lower.plot([], [], "v", color=ACCENT, markersize=9, clip_on=False, label="last pull")
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)
        lower.legend(**LEGEND)
        canvas.figure.align_ylabels()
        for step in steps:
            pictures = []
            for pull, count, win in zip(pulls, counts, wins, strict=True):
                row = min(step, len(pull) - 1)
                for bars, values in ((pulled, count[row]), (paid, win[row])):
                    for bar, value in zip(bars, values, strict=True):
                        bar.set_height(value)
                last = arms[pull[row] > 0]
                now.set_data(last, count[row][last] + 0.04 * lower.get_ylim()[1])
                pictures.append(canvas.picture())
            yield pictures


class MDP:
    """The mean reward of each action in each state, how often each was taken, and where the agent is."""

    def __init__(self, reward: Float[np.ndarray, "state action"], steps_per_second: float) -> None:
        self._reward, self.steps_per_second = reward, steps_per_second

    def clock(self, step: int) -> str:
        return f"step {step}"

    def panels(
        self, episodes: Sequence[NDArray[np.float64]], steps: Sequence[int], width: int, height: int
    ) -> Iterator[list[Picture]]:
        num_states, num_actions = self._reward.shape
        paths = [states[:, :num_states].argmax(1) for states in episodes]
        choices = [states[1:, num_states:-1].argmax(1) for states in episodes]
        canvas = Canvas(width, height)
        axes = canvas.figure.add_axes((0.09, 0.12, 0.71, 0.8))
        states, actions = np.arange(num_states), np.arange(num_actions)
        mesh = axes.pcolormesh(states, actions, self._reward.T, cmap=REWARDS, edgecolors=PAPER, linewidth=1.5)
        axes.set(xticks=states, yticks=actions, xlabel="state", ylabel="action")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        colors = canvas.figure.colorbar(mesh, cax=canvas.figure.add_axes((0.82, 0.12, 0.03, 0.8)), label="mean reward")
        colors.outline.set_visible(False)
        here = Rectangle((0, -0.5), 1, num_actions, fill=False, edgecolor=INK, linewidth=2, label="present state")
        last = Rectangle((0, 0), 1, 1, fill=False, edgecolor=ACCENT, linewidth=3, zorder=3, label="last action")
        for box in (here, last):
            axes.add_patch(box).set_clip_on(False)
        axes.plot([], [], color=INK, linestyle="", marker="$1$", label="times taken")
        axes.legend(**LEGEND)
        cells = [(x, y) for x in range(num_states) for y in range(num_actions)]
        numbers = [axes.text(x, y, "", color=INK, ha="center", va="center") for x, y in cells]
        for step in steps:
            pictures = []
            for path, choice in zip(paths, choices, strict=True):
                taken = list(zip(path[:-1], choice, strict=True))[:step]
                for number, cell in zip(numbers, cells, strict=True):
                    number.set_text(str(taken.count(cell) or ""))
                here.set_x(path[min(step, len(choice))] - 0.5)
                x, y = taken[-1] if taken else (0, 0)
                last.set(x=x - 0.5, y=y - 0.5, visible=bool(taken))
                pictures.append(canvas.picture())
            yield pictures
