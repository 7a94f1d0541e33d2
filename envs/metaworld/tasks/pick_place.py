"""Picking a block up and putting it somewhere: in the air, behind a wall, on a shelf."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import between_pads, caging, in_plane
from metarl.envs.metaworld.picking import in_hand, pick_and_place_v1
from metarl.envs.metaworld.rewards import Scalars, distance, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant


class BlockTask(SawyerTask):
    """A block, observed with the orientation of its geom, that version 1 wants lifted by 4 cm and carried."""

    success_radius = 0.07
    min_distance = 0.15

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.set_object(vec[:3])
        return {"target": vec[3:], "obj_init": vec[:3]}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), quaternion_of(scene.geom_matrix("objGeom"))], dim=-1)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return pick_and_place_v1(scene, obj, 0.04)


class PickPlace(BlockTask):
    """The puck's goal is in the air."""

    name = "pick-place-v3"
    model = "sawyer_pick_place_v3"
    vec_low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05)  # puck, goal
    vec_high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)
    goal_low, goal_high = (-0.1, 0.8, 0.05), (0.1, 0.9, 0.3)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, scene.target))
        caged = hamacher_product(between_pads(scene, obj, 0.015), in_plane(scene, obj, 0.005))
        closed = torch.where(caged > 0.97, scene.gripper_effort.clamp(0.0, 1.0), 0.0)
        grasped = (hamacher_product(caged, closed) + caged) / 2
        reward = hamacher_product(grasped, in_place)
        reward = torch.where(in_hand(scene, obj, 0.02, 0.01), reward + 1.0 + 5.0 * in_place, reward)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)


class PickPlaceWall(BlockTask):
    """A wall stands between the puck and its goal; the way leads over it."""

    name = "pick-place-wall-v3"
    model = "sawyer_pick_place_wall_v3"
    vec_low = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05)  # puck, goal
    vec_high = (0.05, 0.65, 0.015, 0.05, 0.9, 0.3)
    goal_low, goal_high = (-0.05, 0.85, 0.05), (0.05, 0.9, 0.3)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        above_wall = torch.cat([scene.target[:, :1], constant(obj, (0.77, 0.25)).expand(len(obj), 2)], dim=-1)
        scale = constant(obj, (1.0, 1.0, 3.0))
        margin = norm((scene.obj_init - above_wall) * scale)
        midway = long_tail(norm((obj - above_wall) * scale), 0.05, margin)
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, scene.target))
        grasped = caging(scene, obj, obj_radius=0.015, pad_success_thresh=0.05, xz_thresh=0.005)
        reward = hamacher_product(grasped, midway)
        carried = torch.where(obj[:, 1] > 0.75, 4.0 + 3.0 * in_place, 4.0 * midway)
        reward = torch.where(in_hand(scene, obj, 0.02, 0.015), reward + 1.0 + carried, reward)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)


class ShelfPlace(BlockTask):
    """The goal is on the middle board of a shelf, which the block should not pass below."""

    name = "shelf-place-v3"
    model = "sawyer_shelf_placing"
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.1, 0.5, 0.019, -0.1, 0.8, 0.299)  # block, goal
    vec_high = (0.1, 0.6, 0.021, 0.1, 0.9, 0.301)
    goal_low, goal_high = (-0.1, 0.8, 0.299), (0.1, 0.9, 0.301)
    min_distance = 0.1

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        block = concatenate(vec[:2], sim.body("obj")[2:])
        board = (0.0, 0.0, 0.3)
        shelf = vec[3:] - board
        sim.move_body("shelf", shelf)
        sim.set_object(block)
        return {"target": shelf + board, "obj_init": block}

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, scene.target))
        grasped = caging(scene, obj, obj_radius=0.02, pad_success_thresh=0.05, xz_thresh=0.01)
        reward = hamacher_product(grasped, in_place)
        in_place = self._not_below(scene, obj, in_place)
        reward = torch.where(in_hand(scene, obj, 0.025, 0.01), reward + 1.0 + 5.0 * in_place, reward)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)

    @staticmethod
    def _not_below(scene: Scene, obj: Points, in_place: Scalars) -> Scalars:
        """``in_place``, less for a block that is too low and close to the shelf to be lifted onto its board."""
        z, depth = obj[:, 2], 3 * 0.05
        behind = obj[:, 1] - scene.target[:, 1]
        low = (z > 0.0) & (z < 0.24) & ((obj - scene.target)[:, 0].abs() < 0.15)
        loss = hamacher_product((behind + depth) / depth, (0.24 - z) / 0.24)
        in_front = low & (behind > -depth) & (behind < 0.0)
        in_place = torch.where(in_front, (in_place - loss).clamp(0.0, 1.0), in_place)
        return torch.where(low & (behind > 0.0), 0.0, in_place)
