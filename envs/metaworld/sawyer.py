"""What a Meta-World task is: where things are placed, what is observed, what is rewarded, and when it is solved.

A task is stateless: facts as class attributes and functions of a :class:`envs.metaworld.scene.Scene`, over worlds.
Definitions: Meta-World (Yu et al. 2020), package ``metaworld`` 3.0.0, V3 environments; rewards of version 2 (0 to 10)
and version 1, the first of the benchmark's papers. :mod:`tests.test_metaworld` holds every task to that package.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from envs.metaworld.rewards import Flags, Numbers, Worlds
from envs.metaworld.scene import Points, Scene
from envs.metaworld.simulation import Simulation, Vector

SAWYER: dict[str, "SawyerTask"] = {}
"""Every Meta-World task by its name, e.g. ``reach-v3``."""


class Terms(NamedTuple):
    """What Meta-World's ``info`` tells of a step, world by world."""

    reward: Worlds
    near: Worlds
    """Distance that decides ``near_object`` [m]."""
    obj_to_target: Worlds
    """Distance that decides success [m, or rad]."""
    grasp_reward: Worlds
    in_place_reward: Worlds
    remaining: Worlds | None = None
    """What decides success where ``obj_to_target`` does not [m, or rad]."""
    solved: Flags | None = None
    """Whether the task is solved, where no distance decides."""


class SawyerTask(ABC):
    """One environment of Meta-World. Subclasses with a ``name`` register themselves."""

    name: ClassVar[str] = ""
    model: ClassVar[str]
    """The XML of the installed package, without its ending."""
    touch: ClassVar[str] = ""
    """Geom whose touch by the fingers success depends on; sensing it costs time."""
    hand_low: ClassVar[Sequence[float]] = (-0.5, 0.40, 0.05)
    """Where the mocap body may be dragged [m]."""
    hand_high: ClassVar[Sequence[float]] = (0.5, 1.0, 0.5)
    hand_init: ClassVar[Sequence[float] | Vector] = (0.0, 0.6, 0.2)
    """Where the hand settles before an episode [m]."""
    vec_low: ClassVar[Sequence[float]]
    """Lower corner of the box that the random vector (Meta-World's ``rand_vec``) is drawn from."""
    vec_high: ClassVar[Sequence[float]]
    goal_low: ClassVar[Sequence[float] | None] = None
    """Lower corner of the goal as observed; None: the hand's."""
    goal_high: ClassVar[Sequence[float] | None] = None
    success_radius: ClassVar[float] = 0.05
    """Solved where ``obj_to_target`` is at most this."""
    near_radius: ClassVar[float] = 0.03
    """``near_object`` where ``near`` is at most this."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            SAWYER[cls.name] = cls()

    def accepts(self, vec: Vector) -> bool:
        """Whether a drawn random vector is used; others are drawn again."""
        return True

    @abstractmethod
    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        """Places what ``vec`` says after the arm has settled; returns what the episode needs to remember.

        ``target`` [3] is required. ``init_tcp`` [3] is filled in where it is not returned. Positions of bodies must
        not depend on the ones of an earlier call.
        """

    @abstractmethod
    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        """What is observed beyond hand and gripper: position and quaternion of each object, at most 14 numbers."""

    @abstractmethod
    def reward(self, scene: Scene, obj: Points) -> Terms:
        """The reward of version 2, 0 to 10, and its terms; ``obj`` = observation[4:7]."""

    @abstractmethod
    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        """The reward of version 1, unbounded."""

    def success(self, scene: Scene, terms: Terms) -> Flags:
        """Whether the task is solved in this step."""
        if terms.solved is not None:
            return terms.solved
        remaining = terms.obj_to_target if terms.remaining is None else terms.remaining
        return remaining <= self.success_radius

    def near_object(self, scene: Scene, terms: Terms) -> Numbers:
        return terms.near <= self.near_radius


def concatenate(*parts: Sequence[float] | Vector | float) -> Vector:
    return np.concatenate([np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in parts])
