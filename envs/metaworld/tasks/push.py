"""Pushing: slide an object over the table to a goal."""

import torch
from jaxtyping import Float
from torch import Tensor

from envs.metaworld.caging import caging
from envs.metaworld.rewards import distance, long_tail, norm, peaked
from envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from envs.metaworld.scene import Points, Scene, quaternion_of
from envs.metaworld.simulation import Simulation, Vector, flat_distance


class Push(SawyerTask):
    """The puck lies somewhere in front of the hand, its goal behind it."""

    name = "push-v3"
    model = "sawyer_push_v3"
    vec_low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01)  # puck, goal
    vec_high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.02)
    goal_low, goal_high = (-0.1, 0.8, 0.01), (0.1, 0.9, 0.02)

    def accepts(self, vec: Vector) -> bool:
        return flat_distance(vec, vec[3:]) >= 0.15

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        height = sim.body("obj")[2:]
        puck = concatenate(vec[:2], height)
        sim.set_object(puck)
        return {"target": concatenate(vec[3:5], height), "obj_init": puck}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), quaternion_of(scene.geom_matrix("objGeom"))], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, scene.target))
        grasped = caging(scene, obj, obj_radius=0.015, pad_success_thresh=0.05, xz_thresh=0.005, density="high")
        reward = 2 * grasped
        pushing = (to_obj < 0.02) & (scene.opened > 0)
        reward = torch.where(pushing, 2 * reward + 1.0 + 5.0 * in_place, reward)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(scene.tcp, obj)
        to_target = norm((obj - scene.target)[:, :2])
        farthest = norm((scene.obj_init - scene.target)[:, :2])
        nothing = torch.zeros_like(to_obj)
        reward = torch.where(to_obj < 0.05, peaked(farthest - to_target, to_target), 0.0) - to_obj
        return Terms(reward, nothing, to_target, nothing, nothing)
