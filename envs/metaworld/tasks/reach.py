"""Reaching: bring the gripper to a point in the air."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.rewards import distance, long_tail, norm, peaked
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector
from metarl.envs.physics import constant


class Reach(SawyerTask):
    """The object beside the goal has no part in it."""

    name = "reach-v3"
    model = "sawyer_reach_v3"
    vec_low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05)  # object, goal
    vec_high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)
    goal_low, goal_high = (-0.1, 0.8, 0.05), (0.1, 0.9, 0.3)
    min_distance = 0.15

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.set_object(vec[:3])
        return {"target": vec[3:]}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), quaternion_of(scene.geom_matrix("objGeom"))], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_target = distance(scene.tcp, scene.target)
        margin = norm(scene.target - constant(scene.target, self.hand_init))
        in_place = long_tail(to_target, 0.05, margin)
        return Terms(10 * in_place, to_target, to_target, to_target, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_target = distance(scene.tcp, scene.target)
        reward = peaked(distance(scene.init_tcp, scene.target) - to_target, to_target)
        return Terms(reward, to_target, to_target, to_target)


class ReachWall(Reach):
    """The goal is behind a wall."""

    name = "reach-wall-v3"
    model = "sawyer_reach_wall_v3"
    vec_low = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05)  # object, goal
    vec_high = (0.05, 0.65, 0.015, 0.05, 0.9, 0.3)
    goal_low, goal_high = (-0.05, 0.85, 0.05), (0.05, 0.9, 0.3)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        return super().reward(scene, obj)._replace(near=0.0, grasp_reward=0.0)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return super().reward_v1(scene, obj)._replace(near=0.0, grasp_reward=0.0)
