"""Doors with a handle, opened and closed."""

import math
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import flat, reach_and_move_v1
from metarl.envs.metaworld.rewards import Flags, Scalars, distance, funnel, gaussian, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector, flat_distance, single
from metarl.envs.physics import constant


class Door(SawyerTask):
    """A door on a hinge, whose handle is observed."""

    model = "sawyer_door_pull"
    vec_low = (0.0, 0.85, 0.15)  # door
    vec_high = (0.1, 0.95, 0.15)
    success_radius = 0.08
    angle: ClassVar[float]
    """Of the hinge at first [rad]; negative is open."""
    to_goal: ClassVar[tuple[float, float, float]]
    """The goal, seen from the door [m]."""

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("door", vec)
        sim.set_object(self.angle, qvel=slice(9, 10))
        target = vec + np.array(self.to_goal)
        return {"target": target, "farthest": flat_distance(sim.geom("handle"), target)}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.geom("handle"), quaternion_of(scene.geom_matrix("handle"))], dim=-1)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return reach_and_move_v1(distance(obj, scene.tcp), flat(obj, scene.target), scene.episode["farthest"])


class DoorOpen(Door):
    """Solved by the handle's x alone; Meta-World reports 0 as the distance to the goal."""

    name = "door-open-v3"
    goal_low, goal_high = (-0.3, 0.4, 0.1499), (-0.2, 0.5, 0.1501)
    angle = 0.0
    to_goal = (-0.3, -0.45, 0.0)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        effort = (scene.gripper_effort.clamp(-1.0, 1.0) + 1.0) / 2.0
        ready, opened = self._ready(scene.hand, obj), self._opened(scene.joint("doorjoint"))
        solved = self._solved(scene, obj)
        reward = torch.where(solved, 10.0, 2 * hamacher_product(ready, effort) + 8 * opened)
        return Terms(reward, ready, 0.0, effort, opened, solved)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return super().reward_v1(scene, obj)._replace(obj_to_target=0.0, solved=self._solved(scene, obj))

    def _solved(self, scene: Scene, obj: Points) -> Flags:
        return (obj - scene.target)[:, 0].abs() <= self.success_radius

    @staticmethod
    def _ready(hand: Points, obj: Points) -> Scalars:
        """Hand between handle and door, having come from above: a funnel around the handle is its floor."""
        threshold = 0.12
        radius = norm((hand - obj + constant(obj, (0.05, 0.0, 0.0)))[:, :2])
        floor = funnel(radius, threshold, slope=0.04, height=0.4)
        above = torch.where(hand[:, 2] >= floor, 1.0, long_tail(floor - hand[:, 2], 0.01, floor / 2))
        in_place = long_tail(distance(hand, obj + constant(obj, (0.0, 0.03, -0.01))), threshold / 2, 0.5)
        return hamacher_product(above, in_place)

    @staticmethod
    def _opened(hinge: Scalars) -> Scalars:
        """0.2 for having moved the door at all, 0.8 for how far it is open."""
        moved = (hinge < -math.pi / 90).to(hinge)
        return 0.2 * moved + 0.8 * long_tail(math.pi * 2 / 3 + hinge, 0.5, math.pi / 3)


class DoorClose(Door):
    """The door starts wide open; there is no reward for a grasp."""

    name = "door-close-v3"
    hand_init = single(-0.5, 0.6, 0.2)
    goal_low, goal_high = (0.2, 0.65, 0.1499), (0.3, 0.75, 0.1501)
    angle = -1.5708
    to_goal = (0.2, -0.2, 0.0)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_target = distance(obj, scene.target)
        in_place = gaussian(to_target, 0.05, math.hypot(*self.to_goal))
        margin = norm(obj - constant(obj, self.hand_init)) + 0.1
        hand_in_place = gaussian(distance(scene.tcp, scene.target), 0.25 * 0.05, margin)
        reward = torch.where(to_target < 0.05, 10.0, 3 * hand_in_place + 6 * in_place)
        return Terms(reward, 0.0, to_target, 1.0, hand_in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return super().reward_v1(scene, obj)._replace(grasp_reward=1.0)
