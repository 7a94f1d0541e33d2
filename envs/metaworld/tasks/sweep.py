"""Sweeping: move a block over the table and off it, or into a hole."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging_by_sides
from metarl.envs.metaworld.pushing import flat, move
from metarl.envs.metaworld.rewards import distance, hamacher_product, long_tail
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector, flat_distance

HOLE = (0.0, 0.84, 0.02)


class Sweeping(SawyerTask):
    """What sweeping anywhere has in common."""

    xz_thresh: ClassVar[float]
    """Distance of the hand to the block in the xz plane that counts as there [m]."""
    grip_margin: ClassVar[float]
    """A pad that is at most this much farther than the block's radius grips [m]."""

    def goal(self, scene: Scene, obj: Points) -> Points:
        return scene.target

    def fallen(self, scene: Scene, obj: Points) -> Bool[Tensor, " world"]:
        """Where the block is below the table."""
        return obj[:, 2] < scene.obj_init[:, 2] - 0.05

    def reward(self, scene: Scene, obj: Points) -> Terms:
        goal = self.goal(scene, obj)
        to_target = distance(obj, goal)
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, goal))
        grasped = caging_by_sides(scene, obj, obj_radius=0.02, xz_thresh=self.xz_thresh, grip_margin=self.grip_margin)
        reward = 2 * grasped + 6 * hamacher_product(grasped, in_place)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, distance(obj, scene.tcp), to_target, grasped, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        fallen, to_obj = self.fallen(scene, obj), distance(obj, scene.tcp)
        remaining = torch.where(fallen, 0.0, flat(obj, scene.target))
        moving = move(to_obj, remaining, flat(scene.obj_init, scene.target))
        return Terms(moving - torch.where(fallen, 0.0, to_obj), obj_to_target=remaining)


class Sweep(Sweeping):
    """The block is to leave the table at its side, straight across from where it lies."""

    name = "sweep-v3"
    model = "sawyer_sweep_v3"
    vec_low = (-0.1, 0.6, 0.02)  # block
    vec_high = (0.1, 0.7, 0.02)
    goal_low, goal_high = (0.49, 0.6, 0.0), (0.51, 0.7, 0.02)
    xz_thresh = 0.005
    grip_margin = 0.01

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        block = concatenate(vec[:2], 0.02)
        sim.set_object(block)
        return {"target": concatenate(0.5, vec[1], 0.01), "obj_init": block}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), scene.body_quat("obj")], dim=-1)


class SweepInto(Sweeping):
    """The hole is always at the same place, whatever the random vector says of it; the block's height is free."""

    name = "sweep-into-v3"
    model = "sawyer_table_with_hole"
    vec_low = (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199)  # block, hole (not used)
    vec_high = (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201)
    goal_low, goal_high = vec_low[3:], vec_high[3:]
    xz_thresh = 0.01
    grip_margin = 0.005

    def accepts(self, vec: Vector) -> bool:
        return flat_distance(vec, HOLE) >= 0.15

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        block = concatenate(vec[:2], sim.body("obj")[2:])
        sim.set_object(block)
        return {"target": concatenate(HOLE), "obj_init": block}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), quaternion_of(scene.geom_matrix("objGeom"))], dim=-1)

    def goal(self, scene: Scene, obj: Points) -> Points:
        return torch.cat([scene.target[:, :2], obj[:, 2:]], dim=-1)

    def fallen(self, scene: Scene, obj: Points) -> Bool[Tensor, " world"]:
        return super().fallen(scene, obj) & (obj[:, 1] > 0.4) & (obj[:, 1] < 1.0)
