"""A wrench and a peg: put its ring over the peg, or take it off."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging_handle
from metarl.envs.metaworld.picking import approach
from metarl.envs.metaworld.rewards import (
    Flags,
    Scalars,
    close_quaternion,
    distance,
    funnel,
    lifting,
    long_tail,
    norm,
    peaked,
)
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant

FLAT = (0.707, 0.0, 0.0, 0.707)  # quaternion of the wrench as it lies at first


class Wrench(SawyerTask):
    """Its handle is what is observed and held; the ring's center is the origin of its body."""

    model = "sawyer_assembly_peg"
    min_distance = 0.1
    density: ClassVar[str]
    """Of the reward for grasping (:func:`metarl.envs.metaworld.caging.caging`)."""

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.site("RoundNut-8"), scene.body_quat("RoundNut")], dim=-1)

    @abstractmethod
    def in_place(self, scene: Scene) -> Scalars:
        """How well the ring is placed, 0 to 1."""

    @abstractmethod
    def solved(self, scene: Scene) -> Flags:
        """Whether version 2 counts the task as solved."""

    def reward(self, scene: Scene, obj: Points) -> Terms:
        grasped = caging_handle(scene, obj, length=0.02, density=self.density)
        flat = close_quaternion(scene.body_quat("RoundNut"), FLAT)
        in_place, solved = self.in_place(scene), self.solved(scene)
        reward = torch.where(solved, 10.0, (2 * grasped + 6 * in_place) * flat)
        return Terms(reward, flat, 0.0, grasped, in_place, solved)


class Assembly(Wrench):
    """Lift the wrench and put its ring over the peg."""

    name = "assembly-v3"
    hand_init = single(0.0, 0.6, 0.2)
    vec_low = (0.0, 0.6, 0.02, -0.1, 0.75, 0.1)  # wrench, top of the peg
    vec_high = (0.0, 0.6, 0.02, 0.1, 0.85, 0.1)
    goal_low, goal_high = (-0.1, 0.75, 0.1), (0.1, 0.85, 0.1)
    density = "medium"

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.set_object(vec[:3])
        sim.move_body("peg", vec[3:] - np.array([0.0, 0.0, 0.05]))
        return {"target": vec[3:], "obj_init": vec[:3], "height": sim.site("RoundNut-8")[2]}

    def solved(self, scene: Scene) -> Flags:
        """The ring is around the peg and below its top."""
        error = scene.target - scene.site("RoundNut")
        return (norm(error[:, :2]) < 0.02) & (error[:, 2] > 0)

    def in_place(self, scene: Scene) -> Scalars:
        """The ring is to move along a funnel around the peg, whose bottom is wider once the task is solved."""
        ring = scene.site("RoundNut")
        aside, z = (scene.target - ring)[:, :2], ring[:, 2]
        radius = norm(aside)
        mouth = 0.01 + 0.01 * self.solved(scene).to(ring)
        height = funnel(radius, mouth, slope=0.02, height=0.2)
        error = torch.cat([aside, 3 * (height - z)[:, None]], dim=-1)
        lifted = (z > 0.02) | (radius < mouth)
        return 0.1 * lifted.to(ring) + 0.9 * long_tail(norm(error), 0.02, 0.4)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        ring, rest = scene.body("RoundNut"), scene.episode["height"]
        goal, z, to_obj = rest + 0.1, ring[:, 2], distance(obj, scene.tcp)
        aside = (ring - scene.target)[:, :2]
        remaining, below = norm(aside), (z - rest).abs()
        start = torch.cat([scene.obj_init[:, :2], goal[:, None]], dim=-1)
        farthest = distance(start, scene.target) + goal
        around = (aside.abs() < 0.03).all(-1)
        lifted = around | ((z >= goal - 0.01) & (to_obj < 0.03))
        placing = peaked(farthest - remaining, remaining)
        lowering = 2 * peaked(goal - below, below, width=0.003, least=-torch.inf)
        placing = (placing + torch.where(around, lowering, 0.0)).clamp(min=0.0)
        reward = approach(scene, obj, beside=0.04, close=0.04, climb=1.0)
        reward = reward + lifting(z, rest, goal, lifted=lifted, held=to_obj < 0.04)
        reward = reward + torch.where(lifted, placing, 0.0)
        return Terms(reward, solved=around & (below <= 0.04))


class Disassemble(Wrench):
    """Lift the wrench, whose ring is around the peg, up and off it."""

    name = "disassemble-v3"
    hand_init = single(0.0, 0.4, 0.2)
    vec_low = (0.0, 0.6, 0.025, -0.1, 0.6, 0.1699)  # wrench; a point that only decides which vectors are accepted
    vec_high = (0.1, 0.75, 0.02501, 0.1, 0.75, 0.1701)
    goal_low, goal_high = (-0.1, 0.6, 0.1699 + 0.005), (0.1, 0.75, 0.1701 + 0.005)
    density = "high"

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        wrench = vec[:3]
        sim.move_body("peg", wrench + np.array([0.0, 0.0, 0.03]))
        sim.forward()
        sim.set_object(wrench)
        return {"target": wrench + np.array([0.0, 0.0, 0.15]), "obj_init": wrench}

    def solved(self, scene: Scene) -> Flags:
        return scene.site("RoundNut-8")[:, 2] > scene.target[:, 2]

    def in_place(self, scene: Scene) -> Scalars:
        ring = scene.site("RoundNut")
        to_target = distance(scene.target + constant(ring, (0.0, 0.0, 0.1)), ring)
        return 0.1 * (ring[:, 2] > 0.02).to(ring) + 0.9 * long_tail(to_target, 0.02, 0.2)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        rest, z, to_obj = scene.obj_init[:, 2], obj[:, 2], distance(obj, scene.tcp)
        goal, remaining = rest + 0.05, distance(obj, scene.target)
        start = torch.cat([scene.obj_init[:, :2], goal[:, None]], dim=-1)
        farthest = distance(start, scene.target) + goal
        lifted = (z >= goal - 0.01) & (to_obj < 0.04)
        reward = approach(scene, obj, beside=0.04, close=0.04)
        reward = reward + lifting(z, rest, goal, lifted=lifted, held=to_obj < 0.04)
        off = ((scene.body("RoundNut") - scene.obj_init)[:, :2].abs() > 0.05).any(-1)
        reward = torch.where(off, 100 * goal, reward)
        placing = torch.where(lifted & (to_obj < 0.03), peaked(farthest - remaining, remaining), 0.0)
        return Terms(reward + placing, solved=self.solved(scene))
