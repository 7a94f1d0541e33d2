"""A hole in the table: things taken out of it, and the hand put into it."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging
from metarl.envs.metaworld.picking import pick_and_place_v1
from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import Scalars, distance, funnel, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, single


class HoleTask(SawyerTask):
    """An object and a goal, one of them in the hole."""

    min_distance = 0.15

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), scene.body_quat("obj")], dim=-1)


class PickOutOfHole(HoleTask):
    """The puck lies in the hole, its goal is in the air; the hand should enter the hole from above."""

    name = "pick-out-of-hole-v3"
    model = "sawyer_pick_out_of_hole"
    hand_low = (-0.5, 0.40, -0.05)
    vec_low = (0.0, 0.75, 0.02, -0.1, 0.5, 0.15)  # puck, goal
    vec_high = (0.0, 0.75, 0.02, 0.1, 0.6, 0.3)
    goal_low, goal_high = (-0.1, 0.5, 0.15), (0.1, 0.6, 0.3)
    success_radius = 0.07

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.set_object(vec[:3])
        return {"target": vec[3:], "obj_init": vec[:3]}

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        grasped = caging(
            scene,
            obj,
            obj_radius=0.015,
            pad_success_thresh=0.02,
            xz_thresh=0.03,
            desired_gripper_effort=0.1,
            density="high",
        )
        in_place = long_tail(to_target, 0.02, distance(scene.obj_init, scene.target))
        reward = hamacher_product(grasped, in_place)
        in_hand = (to_obj < 0.04) & (obj[:, 2] - 0.02 > scene.obj_init[:, 2]) & (scene.opened >= 0.33)
        carried = 1.0 + 5.0 * hamacher_product(in_place, self._above_floor(scene))
        reward = torch.where(in_hand, reward + carried, reward)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)

    @staticmethod
    def _above_floor(scene: Scene) -> Scalars:
        """1 where the fingers are inside a funnel over the hole."""
        floor = funnel(norm((scene.tcp - scene.obj_init)[:, :2]), 0.03, slope=0.015, height=0.15)
        return long_tail((floor - scene.tcp[:, 2]).clamp(min=0.0), 0.01, 0.02)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return pick_and_place_v1(scene, obj, 0.11, base=scene.obj_init[:, 2] - 0.02)


class HandInsert(HoleTask):
    """The hand is to take a block into the hole; version 1 wants only the hand there."""

    name = "hand-insert-v3"
    model = "sawyer_table_with_hole"
    hand_low = (-0.5, 0.40, -0.15)
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.1, 0.6, 0.05, -0.04, 0.8, -0.0201)  # block, goal
    vec_high = (0.1, 0.7, 0.05, 0.04, 0.88, -0.0199)
    goal_low, goal_high = (-0.04, 0.8, -0.0201), (0.04, 0.88, -0.0199)

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        block = concatenate(vec[:2], (0.05,))
        sim.set_object(block)
        return {"target": vec[3:], "obj_init": block}

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, scene.target))
        grasped = caging(scene, obj, obj_radius=0.015, pad_success_thresh=0.05, xz_thresh=0.005, density="high")
        reward = hamacher_product(grasped, in_place)
        at_fingers = (to_obj < 0.02) & (scene.opened > 0)
        reward = torch.where(at_fingers, reward + 1.0 + 7.0 * in_place, reward)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        aside, depth = norm((scene.tcp - scene.target)[:, :2]), (scene.tcp - scene.target)[:, 2].abs()
        farthest = (float(self.hand_init[2]) - scene.target[:, 2]).abs()
        terms = reach_and_move_v1(aside, depth, farthest)
        return terms._replace(obj_to_target=distance(scene.obj_init, scene.target))
