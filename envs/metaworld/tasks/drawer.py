"""Drawers."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import distance, gaussian, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant

HANDLE = np.array([0.0, -0.16, 0.09])  # of the closed drawer, seen from its cabinet


class Drawer(SawyerTask):
    """A cabinet at the back of the table, with one drawer."""

    model = "sawyer_drawer"
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.1, 0.9, 0.0)  # cabinet
    vec_high = (0.1, 0.9, 0.0)
    travel: ClassVar[float]
    """How far the drawer has to move [m]."""

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.tcp)
        to_target = (obj[:, 1] - scene.target[:, 1]).abs()
        return reach_and_move_v1(to_obj, to_target, self.travel)


class DrawerOpen(Drawer):
    name = "drawer-open-v3"
    success_radius = 0.03
    travel = 0.2

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("drawer", vec)
        return {"target": vec + HANDLE - np.array([0.0, self.travel, 0.0])}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        link = scene.body("drawer_link")
        return torch.cat([link + constant(link, (0.0, -0.16, 0.0)), scene.body_quat("drawer_link")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_target = distance(obj, scene.target)
        opening = long_tail(to_target, 0.02, self.travel)
        handle_init = scene.target + constant(obj, (0.0, self.travel, 0.0))
        scale = constant(obj, (3.0, 3.0, 1.0))  # so that the hand comes from above
        near_handle = long_tail(norm((obj - scene.hand) * scale), 0.01, norm((handle_init - scene.init_tcp) * scale))
        return Terms(5 * (near_handle + opening), distance(obj, scene.hand), to_target, near_handle, opening)


class DrawerClose(Drawer):
    """The drawer starts pulled out; only a closing gripper is rewarded for being at the handle."""

    name = "drawer-close-v3"
    success_radius = 0.05 + 0.015
    travel = 0.15

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("drawer", vec)
        sim.set_object(-self.travel, qvel=slice(0))
        return {"target": vec + HANDLE, "obj_init": sim.body("drawer_link") + np.array([0.0, -0.16, 0.05])}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        link = scene.body("drawer_link")
        return link + constant(link, (0.0, -0.16, 0.05))

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        in_place = long_tail(to_target, 0.05, (distance(scene.obj_init, scene.target) - 0.05).abs())
        at_handle = gaussian(to_obj, 0.005, (distance(scene.obj_init, scene.init_tcp) - 0.005).abs())
        reach = hamacher_product(at_handle, scene.gripper_effort.clamp(0.0, 1.0))
        reward = torch.where(to_target <= self.success_radius, 10.0, 10 * hamacher_product(reach, in_place))
        return Terms(reward, to_obj, to_target, reach, in_place)
