"""Windows that slide sideways."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import Scalars, distance, gaussian, hamacher_product, long_tail
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, single

TRAVEL = 0.2  # m along x between closed and open


class Window(SawyerTask):
    """Its handle is observed, and only the handle's x matters."""

    model = "sawyer_window_horizontal"
    hand_init = single(0, 0.4, 0.2)
    handle: ClassVar[str]
    """The site that is the handle."""

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return scene.site(self.handle)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), self._to_target(scene, obj)
        in_place = long_tail(to_target, 0.05, self.margin(scene))
        reach = self.reached(to_obj, 0.02, (distance(scene.episode["handle_init"], scene.init_tcp) - 0.02).abs())
        return Terms(10 * hamacher_product(reach, in_place), to_obj, to_target, reach, in_place)

    @abstractmethod
    def margin(self, scene: Scene) -> Scalars | float:
        """How far the handle was at first from being close enough to the goal, to version 2 [m]."""

    @abstractmethod
    def reached(self, to_obj: Scalars, upper: float, margin: Scalars) -> Scalars:
        """The reward for being at the handle."""

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        """Moving the window may cost reward, unlike in other tasks: its handle can be beyond ``TRAVEL``."""
        to_obj, to_target = distance(obj, scene.tcp), self._to_target(scene, obj)
        return reach_and_move_v1(to_obj, to_target, TRAVEL, least=-torch.inf)

    @staticmethod
    def _to_target(scene: Scene, obj: Points) -> Scalars:
        return (obj[:, 0] - scene.target[:, 0]).abs()


class WindowOpen(Window):
    name = "window-open-v3"
    vec_low = (-0.1, 0.7, 0.16)  # window
    vec_high = (0.1, 0.9, 0.16)
    handle = "handleOpenStart"

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("window", vec)
        sim.data.joint("window_slide").qpos = 0.0
        return {"target": vec + np.array([TRAVEL, 0.0, 0.0]), "handle_init": sim.site(self.handle)}

    def margin(self, scene: Scene) -> Scalars | float:
        return TRAVEL - 0.05

    def reached(self, to_obj: Scalars, upper: float, margin: Scalars) -> Scalars:
        return long_tail(to_obj, upper, margin)


class WindowClose(Window):
    """The window starts open, but its handle is first observed where it is when closed."""

    name = "window-close-v3"
    vec_low = (0.0, 0.75, 0.2)  # window
    vec_high = (0.0, 0.9, 0.2)
    handle = "handleCloseStart"

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("window", vec)
        sim.data.joint("window_slide").qpos = TRAVEL
        return {"target": vec, "handle_init": sim.site(self.handle) + np.array([TRAVEL, 0.0, 0.0])}

    def margin(self, scene: Scene) -> Scalars | float:
        return (self._to_target(scene, scene.episode["handle_init"]) - 0.05).abs()

    def reached(self, to_obj: Scalars, upper: float, margin: Scalars) -> Scalars:
        return gaussian(to_obj, upper, margin)
