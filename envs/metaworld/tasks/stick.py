"""A stick as a tool: its end goes into the handle of a thermos, which it then moves."""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging
from metarl.envs.metaworld.picking import approach
from metarl.envs.metaworld.rewards import Flags, distance, hamacher_product, lifting, long_tail, norm, peaked
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector
from metarl.envs.physics import constant

THERMOS = (0.2, 0.6, 0.0)  # m; where its slides are 0
HEIGHT = 0.02  # m; of the stick on the table


class Stick(SawyerTask):
    """The stick lies in front of the hand; the thermos behind it slides over the table."""

    model = "sawyer_stick_obj"
    min_distance = 0.1
    success_radius = 0.12
    slides: ClassVar[tuple[float, float]]
    """Where the thermos stands at first, from ``THERMOS`` [m]."""
    handle: ClassVar[tuple[float, float, float]]
    """What is observed of the thermos, from the middle of its handle [m]."""
    width: ClassVar[float]
    """Of version 1's peak at the target, as in :func:`metarl.envs.metaworld.rewards.peaked`."""

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        stick = concatenate(vec[:2], HEIGHT)
        target = concatenate(vec[3:5], self.target_height(sim))
        sim.set_object(stick)
        sim.set_object(self.slides, start=16, qvel=slice(16, 18))
        return {"target": target, "obj_init": stick}

    def target_height(self, sim: Simulation) -> float:
        return HEIGHT

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat(
            [scene.body("stick"), quaternion_of(scene.body_matrix("stick")), self.container(scene)], dim=-1
        )

    def container(self, scene: Scene) -> Points:
        """The thermos as observed."""
        handle = scene.site("insertion")
        return handle + constant(handle, self.handle)

    def grasped(self, scene: Scene, stick: Points) -> Flags:
        """Whether the stick is between the fingers and off the table."""
        return (distance(stick, scene.tcp) < 0.02) & (scene.opened > 0) & self.lifted(scene)

    def lifted(self, scene: Scene) -> Flags:
        return scene.body("stick")[:, 2] - 0.01 > scene.obj_init[:, 2]

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        """Meta-World reads the thermos off the wrong numbers of the observation, and so do we.

        They are the stick's height and the first two numbers of its quaternion.
        """
        misread = self.objects(scene)[:, 2:5]
        start = constant(obj, THERMOS).expand_as(obj)
        z, rest = obj[:, 2], scene.obj_init[:, 2]
        goal = rest + 0.04
        remaining = norm((misread - scene.target)[:, :2])
        apart, farthest = distance(misread, obj), norm((start - scene.target)[:, :2])
        farthest_apart = distance(torch.cat([start[:, :2], goal[:, None]], dim=-1), scene.obj_init) + goal
        lifted, held = z >= goal - 0.01, distance(obj, scene.tcp) < 0.1
        moving = 2 * peaked((farthest - remaining) / 2, remaining, width=self.width, least=-math.inf)
        placing = peaked(farthest_apart - apart, apart) + torch.where(apart < 0.05, moving, 0.0)
        reward = approach(scene, obj, beside=math.inf) + lifting(z, rest, goal, lifted=lifted, held=held)
        reward = reward + torch.where(lifted & held, placing.clamp(min=0.0), 0.0)
        return Terms(reward, obj_to_target=remaining)


class StickPush(Stick):
    """Push the thermos with the stick. Only with the stick in both fingers is it solved; in version 1 it never is."""

    name = "stick-push-v3"
    touch = "objGeom"
    vec_low = (-0.08, 0.58, 0.0, 0.399, 0.55, 0.1319)  # stick, goal
    vec_high = (-0.03, 0.62, 0.001, 0.401, 0.6, 0.1321)
    goal_low, goal_high = (0.399, 0.55, 0.1319), (0.401, 0.6, 0.1321)
    slides = (0.0, 0.0)
    handle = (0.0, 0.09, 0.0)
    width = 0.001

    def target_height(self, sim: Simulation) -> float:
        return float(sim.site("insertion")[2])

    def reward(self, scene: Scene, obj: Points) -> Terms:
        stick, radius = obj + constant(obj, (0.015, 0.0, 0.0)), self.success_radius
        container, start = self.container(scene), constant(obj, THERMOS)
        to_target = distance(container, scene.target)
        in_place = long_tail(distance(stick, scene.target), radius, distance(scene.obj_init, scene.target) - radius)
        container_in_place = long_tail(to_target, radius, norm(start - scene.target) - radius)
        caged = caging(scene, stick, obj_radius=0.04, pad_success_thresh=0.05, xz_thresh=0.01, density="high")
        grasped = self.grasped(scene, stick)
        moving = torch.where(to_target <= radius, 10.0, 2.0 + 5.0 * in_place + 3.0 * container_in_place)
        solved = (to_target <= radius) & scene.touching() & (scene.opened > 0) & self.lifted(scene)
        return Terms(
            torch.where(grasped, moving, caged),
            distance(stick, scene.tcp),
            to_target,
            torch.where(grasped, 1.0, caged),
            in_place,
            solved=solved,
        )

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        terms = super().reward_v1(scene, obj)
        return terms._replace(solved=torch.zeros_like(terms.reward, dtype=torch.bool))


class StickPull(Stick):
    """Put the stick's end through the handle of the thermos and pull it nearer."""

    name = "stick-pull-v3"
    hand_low = (-0.5, 0.35, 0.05)
    vec_low = (-0.1, 0.55, 0.0, 0.35, 0.45, 0.0199)  # stick, goal
    vec_high = (0.0, 0.65, 0.001, 0.45, 0.55, 0.0201)
    goal_low, goal_high = (0.35, 0.45, 0.0199), (0.45, 0.55, 0.0201)
    slides = (0.0, 0.09)
    handle = (0.0, 0.0, 0.0)
    width = 0.01

    def inserted(self, scene: Scene) -> Flags:
        beyond = scene.site("stick_end") - scene.site("insertion")
        return (beyond[:, 0] >= 0) & (beyond[:, 1].abs() <= 0.04) & (beyond[:, 2].abs() <= 0.06)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        handle, middle = scene.site("insertion"), constant(obj, (0.05, 0.0, 0.0))
        container, start = handle + middle, constant(obj, THERMOS).expand_as(obj)
        scale = constant(obj, (1.0, 1.0, 2.0))
        to_target = distance(handle, scene.target)
        at_container = long_tail(norm((obj - container) * scale), 0.05, norm((scene.obj_init - start - middle) * scale))
        at_target = long_tail(distance(obj, scene.target), 0.05, distance(scene.obj_init, scene.target))
        container_at_target = long_tail(distance(container, scene.target), 0.05, norm(start - scene.target))
        caged = caging(
            scene,
            obj,
            obj_radius=0.014,
            pad_success_thresh=0.05,
            xz_thresh=0.01,
            obj_init=start,  # the thermos, not the stick
            density="high",
        )
        grasped = self.grasped(scene, obj)
        grasp_reward = torch.where(grasped, 1.0, caged)
        reward = hamacher_product(grasp_reward, at_container)
        pulling = torch.where(
            to_target <= self.success_radius, 10.0, 6.0 + reward + 2.0 * at_target + container_at_target
        )
        moving = torch.where(self.inserted(scene), pulling, 1.0 + reward + 5.0 * at_container)
        reward = torch.where(grasped, moving, reward)
        return Terms(reward, distance(obj, scene.tcp), to_target, grasp_reward, at_container)

    def success(self, scene: Scene, terms: Terms) -> Flags:
        return (distance(scene.site("insertion"), scene.target) <= self.success_radius) & self.inserted(scene)
