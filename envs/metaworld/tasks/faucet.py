"""A faucet whose handle is turned to either side."""

import math
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import distance, gaussian, long_tail
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector
from metarl.envs.physics import constant

HANDLE, HEIGHT = 0.175, 0.125  # m, from the faucet's axis and from the table
TURN = math.hypot(HANDLE, HEIGHT)  # m, from the faucet's foot to where the handle shall be


class Faucet(SawyerTask):
    """Turn the handle sideways."""

    model = "sawyer_faucet"
    hand_low = (-0.5, 0.40, -0.15)
    hand_init = (0.0, 0.4, 0.2)
    success_radius = 0.07
    side: ClassVar[float]
    """1: towards +x, -1: towards -x."""
    handle: ClassVar[str]
    """The site that is observed."""
    offset: ClassVar[tuple[float, float, float]]
    """From there to what the reward of version 2 takes for the handle [m]."""

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("faucetBase", vec)
        return {"target": vec + np.array([self.side * HANDLE, 0.0, HEIGHT]), "obj_init": vec}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        handle = scene.site(self.handle)
        return torch.cat([handle + constant(handle, (0.0, 0.0, -0.01)), scene.body_quat("faucetBase")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        obj = obj + constant(obj, self.offset)
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        in_place = long_tail(to_target, self.success_radius, TURN - self.success_radius)
        reach = gaussian(to_obj, 0.01, (distance(scene.obj_init, scene.init_tcp) - 0.01).abs())
        reward = torch.where(to_target <= self.success_radius, 10.0, 4 * reach + 6 * in_place)
        return Terms(reward, to_obj, to_target, reach, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return reach_and_move_v1(distance(obj, scene.tcp), distance(obj, scene.target), TURN)


class FaucetOpen(Faucet):
    """Turn the handle to the right."""

    name = "faucet-open-v3"
    vec_low = (-0.05, 0.8, 0.0)  # faucet
    vec_high = (0.05, 0.85, 0.0)
    side, handle, offset = 1.0, "handleStartOpen", (-0.04, 0.0, 0.03)


class FaucetClose(Faucet):
    """Turn the handle to the left."""

    name = "faucet-close-v3"
    vec_low = (-0.1, 0.8, 0.0)  # faucet
    vec_high = (0.1, 0.85, 0.0)
    side, handle, offset = -1.0, "handleStartClose", (0.0, 0.0, 0.0)

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        placed = super().reset(sim, vec)
        sim.forward()
        return placed
