"""What a Meta-World task is: where things are placed, what is observed, what is rewarded, and when it is solved.

A task is stateless: facts as class attributes and functions of a :class:`metarl.envs.metaworld.scene.Scene`, over
worlds.
Definitions: Meta-World (Yu et al. 2020), package ``metaworld`` 3.0.0, V3 environments; rewards of version 2 (0 to 10)
and version 1, the first of the benchmark's papers. :mod:`tests.test_metaworld` holds every task to that package.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.rewards import Flags, Scalars
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, flat_distance

SAWYER: dict[str, "SawyerTask"] = {}
"""Every Meta-World task by its name, e.g. ``reach-v3``."""


class Terms(NamedTuple):
    """What Meta-World's ``info`` tells of a step, world by world; a number is that of all worlds."""

    reward: Scalars
    near: Scalars | float = 0.0
    """What decides ``near_object``: a distance [m], or a factor of the reward."""
    obj_to_target: Scalars | float = 0.0
    """Distance that decides success [m]."""
    grasp_reward: Scalars | float = 0.0
    in_place_reward: Scalars | float = 0.0
    solved: Flags | None = None
    """Whether the task is solved, where ``obj_to_target`` does not decide."""


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
    min_distance: ClassVar[float] = 0.0
    """How far apart on the table the two places of the random vector have to be [m]."""
    goal_low: ClassVar[Sequence[float] | None] = None
    """Lower corner of the goal as observed; None: the hand's."""
    goal_high: ClassVar[Sequence[float] | None] = None
    success_radius: ClassVar[float] = 0.05
    """Solved where ``obj_to_target`` is at most this."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            SAWYER[cls.name] = cls()

    def accepts(self, vec: Vector) -> bool:
        """Whether a drawn random vector is used; others are drawn again."""
        return not self.min_distance or flat_distance(vec, vec[3:]) >= self.min_distance

    @abstractmethod
    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        """Places what ``vec`` says after the arm has settled; returns what the episode needs to remember.

        ``target`` [3] is required. ``init_tcp`` [3] is filled in where it is not returned. Positions of bodies must
        not depend on the ones of an earlier call.
        """

    @abstractmethod
    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        """What is observed beyond hand and gripper: position and quaternion of each object, at most 14 numbers."""

    def observed(self, scene: Scene) -> Float[Tensor, "world 18"]:
        """Hand, gripper opening and objects, before clipping."""
        objects = self.objects(scene)
        parts = [scene.raw_hand, scene.opened[:, None], objects]
        return torch.nn.functional.pad(torch.cat(parts, dim=-1), (0, 14 - objects.shape[-1]))

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
        assert isinstance(terms.obj_to_target, Tensor), f"{self.name}: neither a distance nor a flag decides success"
        return terms.obj_to_target <= self.success_radius


def concatenate(*parts: Sequence[float] | Vector | float) -> Vector:
    return np.concatenate([np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in parts])
