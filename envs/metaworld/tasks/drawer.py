"""Drawers."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from envs.metaworld.rewards import distance, long_tail, norm, peaked
from envs.metaworld.sawyer import SawyerTask, Terms
from envs.metaworld.scene import Points, Scene
from envs.metaworld.simulation import Simulation, Vector, single

PULL = 0.2  # m that an open drawer has moved


class DrawerOpen(SawyerTask):
    name = "drawer-open-v3"
    model = "sawyer_drawer"
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.1, 0.9, 0.0)  # cabinet
    vec_high = (0.1, 0.9, 0.0)
    success_radius = 0.03

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("drawer", vec)
        return {"target": vec + np.array([0.0, -0.16 - PULL, 0.09])}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        link = scene.body("drawer_link")
        return torch.cat([link + link.new_tensor((0.0, -0.16, 0.0)), scene.body_quat("drawer_link")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_target = distance(obj, scene.target)
        opening = long_tail(to_target, 0.02, PULL)
        handle_init = scene.target + obj.new_tensor((0.0, PULL, 0.0))
        scale = obj.new_tensor((3.0, 3.0, 1.0))  # so that the hand comes from above
        near_handle = long_tail(norm((obj - scene.hand) * scale), 0.01, norm((handle_init - scene.init_tcp) * scale))
        return Terms(5 * (near_handle + opening), distance(obj, scene.hand), to_target, near_handle, opening)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.tcp)
        to_target = (obj[:, 1] - scene.target[:, 1]).abs()
        nothing = torch.zeros_like(to_obj)
        reward = torch.where(to_obj < 0.05, peaked(PULL - to_target, to_target), 0.0) - to_obj
        return Terms(reward, nothing, to_target, nothing, nothing)
