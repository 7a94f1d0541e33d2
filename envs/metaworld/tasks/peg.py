"""Pegs, into a hole and out of one."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging
from metarl.envs.metaworld.picking import approach, in_hand, pick_and_place_v1
from metarl.envs.metaworld.rewards import (
    Scalars,
    distance,
    hamacher_product,
    long_tail,
    norm,
    peaked,
    rectangular_prism,
)
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector
from metarl.envs.physics import constant

HOLE = (0.03, 0.0, 0.13)  # m from the block to its hole
SOCKET = (0.044, 0.0, 0.131)  # m from the wall to a plug that is in
PULLED = (0.15, 0.0, 0.0)  # m that a plug which is out has moved


class PegInsertSide(SawyerTask):
    """A peg lies on the table; its head is to go into the hole in the side of a block."""

    name = "peg-insert-side-v3"
    model = "sawyer_peg_insertion_side"
    vec_low = (0.0, 0.5, 0.02, -0.35, 0.4, -0.001)  # peg, block
    vec_high = (0.2, 0.7, 0.02, -0.25, 0.7, 0.001)
    goal_low = (-0.35 + 0.03, 0.4, -0.001 + 0.13)
    goal_high = (-0.25 + 0.03, 0.7, 0.001 + 0.13)
    success_radius = 0.07
    min_distance = 0.1

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        head = sim.site("pegHead")  # where the model has the peg, not where it is about to be
        sim.set_object(vec[:3])
        sim.move_body("box", vec[3:])
        return {"target": vec[3:] + HOLE, "obj_init": vec[:3], "head_init": head}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.site("pegGrasp"), quaternion_of(scene.body_matrix("peg"))], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.tcp)
        head = scene.site("pegHead")
        scale = constant(obj, (1.0, 2.0, 2.0))
        to_target = norm((head - scene.target) * scale)
        in_place = long_tail(to_target, 0.07, norm((scene.episode["head_init"] - scene.target) * scale))
        clear = hamacher_product(self._clear(scene, head, 1), self._clear(scene, head, 2))
        in_place = hamacher_product(in_place, clear)
        grasped = caging(scene, obj, obj_radius=0.0075, pad_success_thresh=0.03, xz_thresh=0.005, density="high")
        lifted = in_hand(scene, obj, 0.08, 0.01)
        grasped = torch.where(lifted, 1.0, grasped)
        reward = hamacher_product(grasped, in_place)
        reward = torch.where(lifted, reward + 1.0 + 5.0 * in_place, reward)
        reward = torch.where(to_target <= 0.07, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)

    @staticmethod
    def _clear(scene: Scene, head: Points, box: int) -> Scalars:
        """Less than 1 where the peg's head is in front of the block but below (1) or above (2) its hole."""
        zero = scene.site(f"bottom_right_corner_collision_box_{box}")
        return rectangular_prism(head, zero, scene.site(f"top_left_corner_collision_box_{box}"))

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        head_to_target = distance(scene.site("pegHead"), scene.target)
        remaining = torch.where(head_to_target <= 0.05, distance(obj, scene.target), head_to_target)
        return pick_and_place_v1(scene, obj, 0.11, climb=1.0, remaining=remaining)


class PegUnplugSide(SawyerTask):
    """A plug is to be pulled sideways out of its socket."""

    name = "peg-unplug-side-v3"
    model = "sawyer_peg_unplug_side"
    vec_low = (-0.25, 0.6, -0.001)  # wall with the socket
    vec_high = (-0.15, 0.8, 0.001)
    goal_low = (-0.25 + 0.194, 0.6, -0.001 + 0.131)
    goal_high = (-0.15 + 0.194, 0.8, 0.001 + 0.131)
    success_radius = 0.07

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        plug = vec + SOCKET
        sim.move_body("box", vec)
        sim.set_object(concatenate(plug, (1.0, 0.0, 0.0, 0.0)), qvel=slice(9, 12))
        return {"target": plug + PULLED, "obj_init": sim.site("pegEnd")}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.site("pegEnd"), scene.body_quat("plug1")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        grasped = caging(
            scene,
            obj,
            obj_radius=0.025,
            pad_success_thresh=0.05,
            xz_thresh=0.005,
            desired_gripper_effort=0.8,
            density="high",
        )
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, scene.target))
        pulled = (scene.opened > 0.5) & (obj[:, 0] - scene.obj_init[:, 0] > 0.015) & (to_obj < 0.035)
        reward = torch.where(pulled, 1 + 2 * grasped + 5 * in_place, 2 * grasped)
        reward = torch.where(to_target <= 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_target = norm((obj - scene.target)[:, :2])
        pulling = peaked(distance(scene.target, scene.obj_init) - to_target, to_target)
        reached = distance(obj, scene.tcp) < 0.05
        reward = approach(scene, obj, start_height=self.hand_init[2]) + torch.where(reached, pulling, 0.0)
        return Terms(reward, obj_to_target=to_target)
