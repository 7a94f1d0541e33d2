"""Hammering."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging_handle
from metarl.envs.metaworld.picking import approach
from metarl.envs.metaworld.rewards import Flags, close_quaternion, distance, lifting, long_tail, peaked
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector
from metarl.envs.physics import constant

HEAD = (0.16, 0.06, 0.0)  # m from the hammer's origin to its head, as it lies
LIFT = 0.09  # m above the table that version 1 wants the hammer


class Hammer(SawyerTask):
    """Pick up a hammer and drive a nail into a block that stands upright."""

    name = "hammer-v3"
    model = "sawyer_hammer"
    hand_init = (0.0, 0.4, 0.2)
    vec_low = (-0.1, 0.4, 0.0)  # hammer
    vec_high = (0.1, 0.5, 0.0)
    goal_low, goal_high = (0.2399, 0.7399, 0.109), (0.2401, 0.7401, 0.111)

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        target = sim.site("goal")
        sim.set_object(vec)
        return {"target": target, "obj_init": vec}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        things = ("hammer", "nail_link")
        return torch.cat([part for name in things for part in (scene.body(name), scene.body_quat(name))], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        grasped = caging_handle(scene, obj, length=0.14, density="high")
        lying = close_quaternion(scene.body_quat("hammer"), (1.0, 0.0, 0.0, 0.0))
        head = obj + constant(obj, HEAD)
        in_place = 0.1 * (head[:, 2] > 0.02).to(obj) + 0.9 * long_tail(distance(head, scene.target), 0.02, 0.2)
        reward = (2 * grasped + 6 * in_place) * lying
        terms = Terms(reward, lying, 0.0, grasped, in_place)
        return terms._replace(reward=torch.where(self.success(scene, terms) & (reward > 5), 10.0, reward))

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        nail, z, rest = scene.site("nailHead"), obj[:, 2], scene.obj_init[:, 2]
        goal = rest + LIFT
        remaining = distance(nail, scene.geom("HammerHead")) + (nail - scene.target)[:, 1].abs()
        farthest = LIFT + goal + (scene.obj_init - scene.target)[:, 1].abs()
        lifted, held = z >= goal - 0.01, distance(obj, scene.tcp) < 0.1
        hitting = torch.where(lifted & held, peaked(farthest - remaining, remaining), 0.0)
        return Terms(approach(scene, obj, beside=math.inf) + lifting(z, rest, goal, lifted=lifted, held=held) + hitting)

    def success(self, scene: Scene, terms: Terms) -> Flags:
        return scene.joint("NailSlideJoint") > 0.09
