"""The lock of a door, turned one way and the other."""

import math
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import Scalars, distance, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant

SCALE = (0.25, 1.0, 0.5)  # how much each axis counts in coming to the lock


class Lock(SawyerTask):
    """A lever on the door: its tip is observed and moves along one axis."""

    model = "sawyer_door_lock"
    hand_low = (-0.5, 0.40, -0.15)
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.1, 0.8, 0.15)  # door
    vec_high = (0.1, 0.85, 0.15)
    success_radius = 0.02
    tip: ClassVar[str]
    axis: ClassVar[int]
    to_goal: ClassVar[tuple[float, float, float]]
    """The goal, seen from where the lever's hinge is at first [m]."""

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.site(self.tip), scene.body_quat("door_link")], dim=-1)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(obj, scene.tcp), distance(obj, scene.target)
        return reach_and_move_v1(to_obj, to_target, math.hypot(*self.to_goal))

    def turned(self, scene: Scene, obj: Points) -> tuple[Scalars, Scalars]:
        """Distance to the goal along the axis [m], and the reward for it."""
        to_target = (scene.target - obj)[:, self.axis].abs()
        return to_target, long_tail(to_target, 0.005, 0.1)


class DoorLock(Lock):
    """With the left finger on the lever, down; the gripper should be open."""

    name = "door-lock-v3"
    tip, axis = "lockStartLock", 2
    to_goal = (0.0, -0.04, -0.1)

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("door", vec)
        sim.settle(self.hand_init, steps=1)
        return {"target": sim.body("lock_link") + np.array(self.to_goal)}

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj = norm((obj - scene.left_pad) * constant(obj, SCALE))
        to_target, locked = self.turned(scene, obj)
        near = long_tail(to_obj, 0.01, to_obj)  # Meta-World's first position of the finger is always its current one
        return Terms(2 * hamacher_product(scene.opened, near) + 8 * locked, to_obj, to_target, near, locked)


class DoorUnlock(Lock):
    """With the shoulder of the gripper against the lever, to the right."""

    name = "door-unlock-v3"
    goal_low, goal_high = (0.0, 0.64, 0.2100), (0.2, 0.7, 0.2111)
    tip, axis = "lockStartUnlock", 0
    to_goal = (0.1, -0.04, 0.0)

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("door", vec)
        sim.set_object(1.5708, qvel=slice(9, 10))
        return {"target": sim.body("lock_link") + np.array(self.to_goal)}

    def reward(self, scene: Scene, obj: Points) -> Terms:
        shoulder, scale = constant(obj, (0.0, 0.055, 0.07)), constant(obj, SCALE)
        to_obj = norm((scene.hand + shoulder - obj) * scale)
        margin = norm((scene.init_tcp + shoulder - scene.body("lock_link")) * scale)
        ready = long_tail(to_obj, 0.02, margin)
        to_target, unlocked = self.turned(scene, obj)
        return Terms(2 * ready + 8 * unlocked, to_obj, to_target, ready, unlocked)
