"""Published results, to print beside ours; never compared without their protocol."""

from typing import NamedTuple

from envs.api import TaskDistribution


class Published(NamedTuple):
    """Mean return over test tasks after 0, 1, 2 ... inner steps, by method."""

    source: str
    num_steps: int
    """Steps of experience of each task before each inner step, at least; in whole episodes."""
    returns: dict[str, tuple[float, ...]]


FINN_2017 = (
    "Finn et al. 2017, icml/*.pkl of cbfinn/maml_rl: mean over 40 tasks, at least 4000 steps of each at "
    "each adaptation step, sampled actions, step size halved after the first"
)

PUBLISHED: dict[tuple[str, str], Published] = {
    ("half_cheetah_dir", "maml2017"): Published(
        FINN_2017,
        4000,
        {
            "MAML": (-50.7, 293.2, 313.5, 315.7),
            "pretrained": (-43.0, -24.8, -12.9, 19.6),
            "untrained": (-35.7, 21.8, 62.3, 86.2),
            "oracle": (442.7, 442.7, 442.7, 442.7),
        },
    ),
    ("half_cheetah_vel", "maml2017"): Published(
        FINN_2017,
        4000,
        {
            "MAML": (-129.5, -78.6, -66.6, -60.8),
            "pretrained": (-158.0, -135.4, -128.5, -133.6),
            "untrained": (-254.8, -254.3, -246.8, -230.8),
            "oracle": (-54.5, -54.5, -54.5, -54.5),
        },
    ),
    ("navigation", "maml2017"): Published(
        FINN_2017,
        4000,
        {
            "MAML": (-40.4, -11.7, -3.3, -3.2),
            "untrained": (-82.7, -58.0, -53.8, -46.8),
            "oracle": (-2.3, -2.3, -2.3, -2.3),
        },
    ),
}
"""By task and the preset that defines it."""


def published(task: TaskDistribution) -> Published | None:
    """What was reported on exactly this definition of the task, if anything."""
    names = (name for name, preset in type(task).presets.items() if preset == task)
    return next((PUBLISHED[task.name, name] for name in names if (task.name, name) in PUBLISHED), None)
