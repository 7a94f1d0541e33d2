"""Pushing: slide an object over the table to a goal."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging, caging_by_sides
from metarl.envs.metaworld.pushing import push_v1
from metarl.envs.metaworld.rewards import Scalars, distance, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant

AROUND_WALL = (-0.05, 0.77)  # where a puck passes the end of the wall


class Pushing(SawyerTask):
    """An object on the table, and a goal at its height."""

    min_distance = 0.15

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        height = sim.body("obj")[2:]
        puck = concatenate(vec[:2], height)
        sim.set_object(puck)
        return {"target": concatenate(vec[3:5], height), "obj_init": puck}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), quaternion_of(scene.geom_matrix("objGeom"))], dim=-1)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return push_v1(scene, obj)


class Push(Pushing):
    """The puck lies somewhere in front of the hand, its goal behind it."""

    name = "push-v3"
    model = "sawyer_push_v3"
    vec_low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01)  # puck, goal
    vec_high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.02)
    goal_low, goal_high = (-0.1, 0.8, 0.01), (0.1, 0.9, 0.02)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, scene.target))
        grasped = caging(scene, obj, obj_radius=0.015, pad_success_thresh=0.05, xz_thresh=0.005, density="high")
        pushing = (to_obj < 0.02) & (scene.opened > 0)
        pushed = self.pushed(scene, obj, grasped, in_place)
        reward = torch.where(pushing, pushed, 2 * grasped)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)

    def pushed(self, scene: Scene, obj: Points, grasped: Scalars, in_place: Scalars) -> Scalars:
        """The reward where the hand is at the puck."""
        return 4 * grasped + 1.0 + 5.0 * in_place


class PushWall(Push):
    """A wall stands between puck and goal: the puck has to go round its end."""

    name = "push-wall-v3"
    model = "sawyer_push_wall_v3"
    vec_low = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.01)  # puck, goal
    vec_high = (0.05, 0.65, 0.015, 0.05, 0.9, 0.02)
    goal_low, goal_high = (-0.05, 0.85, 0.01), (0.05, 0.9, 0.02)
    success_radius = 0.07

    def pushed(self, scene: Scene, obj: Points, grasped: Scalars, in_place: Scalars) -> Scalars:
        scale = constant(obj, (3.0, 1.0, 1.0))  # so that it goes sideways first
        midpoint = torch.cat([constant(obj, AROUND_WALL).expand(len(obj), 2), obj[:, 2:]], dim=-1)
        margin = norm((scene.obj_init - midpoint) * scale)
        sideways = long_tail(norm((obj - midpoint) * scale), 0.05, margin)
        passed = obj[:, 1] > 0.75
        return 2 * grasped + 1.0 + torch.where(passed, 4.0 + 3.0 * in_place, 4.0 * sideways)


class PushBack(Pushing):
    """The block lies behind its goal and is to be pulled back by gripping it."""

    name = "push-back-v3"
    model = "sawyer_push_back_v3"
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.1, 0.8, 0.02, -0.1, 0.6, 0.0199)  # block, goal
    vec_high = (0.1, 0.85, 0.02, 0.1, 0.7, 0.0201)
    goal_low, goal_high = (-0.1, 0.6, 0.0199), (0.1, 0.7, 0.0201)
    success_radius = 0.07

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        farthest = distance(scene.obj_init, scene.target)
        in_place = long_tail(to_target, 0.05, farthest)
        grasped = caging_by_sides(scene, obj, obj_radius=0.007, xz_thresh=0.01, grip_margin=0.003)
        holding = (to_obj < 0.01) & (scene.opened > 0) & (scene.opened < 0.55)
        coming = holding & (farthest - to_target > 0.01)
        reward = hamacher_product(grasped, in_place) + torch.where(coming, 1.0 + 5.0 * in_place, 0.0)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)
