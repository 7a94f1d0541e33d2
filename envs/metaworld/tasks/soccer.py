"""Soccer: a ball and a goal."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging_by_sides
from metarl.envs.metaworld.pushing import push_v1
from metarl.envs.metaworld.rewards import distance, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector
from metarl.envs.physics import constant


class Soccer(SawyerTask):
    """The ball is to roll into the goal; beside the goal it earns less the farther back it is."""

    name = "soccer-v3"
    model = "sawyer_soccer"
    vec_low = (-0.1, 0.6, 0.03, -0.1, 0.8, 0.0)  # ball, goal
    vec_high = (0.1, 0.7, 0.03, 0.1, 0.9, 0.0)
    goal_low, goal_high = (-0.1, 0.8, 0.0), (0.1, 0.9, 0.0)
    success_radius = 0.07
    min_distance = 0.15

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        ball, goal = concatenate(vec[:2], 0.03), vec[3:]
        sim.move_body("goal_whole", goal)
        sim.set_object(ball)
        return {"target": goal, "obj_init": ball}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("soccer_ball"), quaternion_of(scene.body_matrix("soccer_ball"))], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        scale = constant(obj, (3.0, 1.0, 1.0))  # so that it goes between the posts
        remaining = norm((obj - scene.target) * scale)
        in_place = long_tail(remaining, 0.07, norm((obj - scene.obj_init) * scale))
        line = scene.target[:, 1] - 0.1
        behind = obj[:, 1] - line
        missed = (behind > 0) & ((obj - scene.target)[:, 0].abs() > 0.1)
        in_place = torch.where(missed, (in_place - 2 * behind / (1 - line)).clamp(0.0, 1.0), in_place)
        grasped = caging_by_sides(scene, obj, obj_radius=0.013, xz_thresh=0.005, grip_margin=0.01)
        reward = torch.where(remaining < 0.07, 10.0, 3 * grasped + 6.5 * in_place)
        return Terms(reward, distance(obj, scene.tcp), distance(obj, scene.target), grasped, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return push_v1(scene, obj)
