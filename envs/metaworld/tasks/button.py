"""Buttons on a box, pressed from above or from the front."""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import Scalars, distance, hamacher_product, long_tail
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant


class Button(SawyerTask):
    """A button that is to be pushed into its hole along one axis."""

    hand_init = single(0, 0.4, 0.2)
    axis: ClassVar[int]
    face: ClassVar[tuple[float, float, float]]
    """Where the button is touched, seen from its body [m]."""
    reached: ClassVar[float] = 0.01
    """Distance of hand and button that counts as there [m]."""

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("box", vec)
        self.release(sim)
        hole = sim.site("hole")
        return {"target": hole, "travel": abs(hole - sim.site("buttonStart"))[self.axis]}

    def release(self, sim: Simulation) -> None:
        """Brings the positions up to date, by default with the button as it has settled."""
        sim.forward()

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        button = scene.body("button")
        return torch.cat([button + constant(button, self.face), scene.body_quat("button")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.tcp)
        to_target = (scene.target - obj)[:, self.axis].abs()
        near = long_tail(to_obj, self.reached, distance(obj, scene.init_tcp))
        pressed = long_tail(to_target, 0.005, scene.episode["travel"])
        return Terms(self.combine(scene.opened, to_obj, near, pressed), to_obj, to_target, near, pressed)

    @abstractmethod
    def combine(self, opened: Scalars, to_obj: Scalars, near: Scalars, pressed: Scalars) -> Scalars:
        """The reward of version 2: gripper opening, distance to the button [m], rewards for reaching and pressing."""

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, self.finger(scene))
        to_target = (scene.target - obj)[:, self.axis].abs()
        return reach_and_move_v1(to_obj, to_target, self.farthest(scene))

    def finger(self, scene: Scene) -> Points:
        """What presses, to version 1."""
        return scene.tcp

    def farthest(self, scene: Scene) -> Scalars | float:
        """The way the button has to go, to version 1 [m]."""
        return scene.episode["travel"]


class ButtonPressTopdown(Button):
    """To be pressed from above, with the gripper closed."""

    name = "button-press-topdown-v3"
    model = "sawyer_button_press_topdown"
    vec_low = (-0.1, 0.8, 0.115)  # box
    vec_high = (0.1, 0.9, 0.115)
    axis, face = 2, (0.0, 0.0, 0.193)
    success_radius = 0.024

    def combine(self, opened: Scalars, to_obj: Scalars, near: Scalars, pressed: Scalars) -> Scalars:
        return 5 * hamacher_product(1 - opened, near) + torch.where(to_obj <= 0.03, 5 * pressed, 0.0)


class ButtonPressTopdownWall(ButtonPressTopdown):
    """As without the wall, which stands between hand and box."""

    name = "button-press-topdown-wall-v3"
    model = "sawyer_button_press_topdown_wall"


class ButtonPress(Button):
    """To be pressed from the front, with the gripper open."""

    name = "button-press-v3"
    model = "sawyer_button_press"
    vec_low = (-0.1, 0.85, 0.115)  # box
    vec_high = (0.1, 0.9, 0.115)
    axis, face = 1, (0.0, -0.193, 0.0)
    reached = 0.05
    success_radius = 0.02

    def release(self, sim: Simulation) -> None:
        sim.set_object(0.0, qvel=slice(9, 10))

    def combine(self, opened: Scalars, to_obj: Scalars, near: Scalars, pressed: Scalars) -> Scalars:
        return 2 * hamacher_product(opened, near) + torch.where(to_obj <= 0.05, 8 * pressed, 0.0)

    def finger(self, scene: Scene) -> Points:
        return scene.site("leftEndEffector")


class ButtonPressWall(ButtonPress):
    """A wall stands before the box: with the gripper closed over it, then open at the button."""

    name = "button-press-wall-v3"
    model = "sawyer_button_press_wall"
    vec_low = (-0.05, 0.85, 0.1149)  # box
    vec_high = (0.05, 0.9, 0.1151)
    reached = 0.01
    success_radius = 0.03

    def combine(self, opened: Scalars, to_obj: Scalars, near: Scalars, pressed: Scalars) -> Scalars:
        coming = 2 * hamacher_product((1 - opened) / 2, near)
        return torch.where(to_obj > 0.07, coming, 2 + 2 * (1 + opened) + 4 * pressed.square())

    def farthest(self, scene: Scene) -> Scalars | float:
        return 0.0  # Meta-World measures the way along z, where there is none
