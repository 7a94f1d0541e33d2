"""A lever on a post."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import distance, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant

ARM = 0.2  # m, from the lever's hinge to its tip
UPRIGHT = (0.12, 0.0, 0.25 + ARM)  # where the tip of the raised lever is


class LeverPull(SawyerTask):
    """Raise the lever until it points up.

    Solved by the lever's angle, while ``obj_to_target`` is how far the arm's shoulder is from the lever.
    """

    name = "lever-pull-v3"
    model = "sawyer_lever_pull"
    hand_low = (-0.5, 0.40, -0.15)
    hand_init = single(0, 0.4, 0.2)
    vec_low = (-0.1, 0.7, 0.0)  # foot of the post
    vec_high = (0.1, 0.8, 0.0)
    success_radius = math.pi / 24  # version 1: of the distance in m

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("lever", vec)
        return {"target": vec + UPRIGHT}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.site("leverStart"), quaternion_of(scene.geom_matrix("objGeom"))], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        lever_init = scene.target - constant(obj, (0.0, ARM, ARM))
        shoulder = constant(obj, (0.0, 0.055, 0.07))
        scale = constant(obj, (4.0, 1.0, 4.0))  # so that the shoulder comes under the lever
        to_lever = norm((scene.hand + shoulder - obj) * scale)
        ready = long_tail(to_lever, 0.02, norm((scene.init_tcp + shoulder - lever_init) * scale))
        in_place = long_tail(distance(obj, scene.target), 0.04, math.hypot(ARM, ARM))
        angle_left = (-scene.joint("LeverAxis") - math.pi / 2).abs()
        raised = long_tail(angle_left, math.pi / 48, math.pi / 2 - math.pi / 12)
        solved = angle_left <= self.success_radius
        return Terms(10 * hamacher_product(ready, in_place), to_lever, to_lever, ready, raised, solved)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        terms = reach_and_move_v1(to_obj, to_target, math.hypot(*UPRIGHT))
        return terms._replace(obj_to_target=0.0, solved=to_target <= self.success_radius)
