"""A coffee machine and its mug."""

from abc import abstractmethod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging
from metarl.envs.metaworld.pushing import flat, move, push_v1, reach_and_move_v1
from metarl.envs.metaworld.rewards import distance, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector
from metarl.envs.physics import constant

UNDER_SPOUT = np.array([0.0, -0.22, 0.0])  # seen from the machine
STROKE = 0.03  # m from the button to its goal


class Coffee(SawyerTask):
    """A machine, and a mug with the first numbers of the state."""

    model = "sawyer_coffee"
    hand_init = (0.0, 0.4, 0.2)


class CoffeeButton(Coffee):
    """Only the button's distance along its travel counts."""

    name = "coffee-button-v3"
    vec_low = (-0.1, 0.8, -0.001)  # machine
    vec_high = (0.1, 0.9, 0.001)
    goal_low, goal_high = (-0.101, 0.61, 0.298), (0.101, 0.71, 0.302)
    success_radius = 0.02

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("coffee_machine", vec)
        sim.set_object(vec + UNDER_SPOUT, start=0)
        target = vec + UNDER_SPOUT + np.array([0.0, STROKE, 0.3])
        return {"target": target, "farthest": abs(sim.site("buttonStart")[1] - target[1])}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        button = scene.site("buttonStart")
        upright = constant(button, (1.0, 0.0, 0.0, 0.0)).expand(len(button), 4)
        return torch.cat([button, upright], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), (obj - scene.target)[:, 1].abs()
        near = long_tail(to_obj, 0.05, distance(obj, scene.init_tcp))
        pressed = long_tail(to_target, 0.005, STROKE)
        reward = 2 * hamacher_product(scene.opened, near) + torch.where(to_obj <= 0.05, 8 * pressed, 0.0)
        return Terms(reward, to_obj, to_target, near, pressed)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.site("leftEndEffector"))  # Meta-World asks for this finger alone
        to_target = (obj - scene.target)[:, 1].abs()
        return reach_and_move_v1(to_obj, to_target, scene.episode["farthest"])


class Mug(Coffee):
    """The mug is to be brought from one place to another; the machine stands over one of them."""

    success_radius = 0.07
    min_distance = 0.15

    @abstractmethod
    def spout(self, vec: Vector) -> Vector:
        """Which place is the machine's."""

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.set_object(vec[:3], start=0)
        sim.move_body("coffee_machine", self.spout(vec) - UNDER_SPOUT)
        return {"target": vec[3:], "obj_init": vec[:3]}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), quaternion_of(scene.geom_matrix("mug"))], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        scale = constant(obj, (2.0, 2.0, 1.0))
        remaining = norm((obj - scene.target) * scale)
        in_place = long_tail(remaining, 0.05, norm((scene.obj_init - scene.target) * scale))
        grasped = caging(
            scene,
            obj,
            obj_radius=0.02,
            pad_success_thresh=0.05,
            xz_thresh=0.05,
            object_reach_radius=0.04,
            desired_gripper_effort=0.7,
            density="medium",
        )
        to_obj = distance(obj, scene.tcp)
        at_mug = (to_obj < 0.04) & (scene.opened > 0)
        reward = hamacher_product(grasped, in_place) + torch.where(at_mug, 1.0 + 5.0 * in_place, 0.0)
        reward = torch.where(remaining < 0.05, 10.0, reward)
        return Terms(reward, to_obj, distance(obj, scene.target), grasped, in_place)


class CoffeePush(Mug):
    name = "coffee-push-v3"
    vec_low = (-0.1, 0.55, -0.001, -0.05, 0.7, -0.001)  # mug, goal
    vec_high = (0.1, 0.65, 0.001, 0.05, 0.75, 0.001)
    goal_low, goal_high = (-0.05, 0.7, -0.001), (0.05, 0.75, 0.001)

    def spout(self, vec: Vector) -> Vector:
        return vec[3:]

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return push_v1(scene, obj)._replace(obj_to_target=distance(obj, scene.target))


class CoffeePull(Mug):
    """Version 1 does not reward reaching the mug: where the fingers' distance should be, it has the mug's from a point
    above the origin.
    """

    name = "coffee-pull-v3"
    vec_low = (-0.05, 0.7, -0.001, -0.1, 0.55, -0.001)  # mug, goal
    vec_high = (0.05, 0.75, 0.001, 0.1, 0.65, 0.001)
    goal_low, goal_high = (-0.1, 0.55, -0.001), (0.1, 0.65, 0.001)

    def spout(self, vec: Vector) -> Vector:
        return vec[:3]

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        aside = norm(torch.cat([obj[:, :2], scene.init_tcp[:, 2:]], dim=-1))
        farthest = flat(scene.obj_init, scene.target)
        reward = move(distance(scene.tcp, obj), flat(obj, scene.target), farthest) - aside
        return Terms(reward, obj_to_target=distance(obj, scene.target))
