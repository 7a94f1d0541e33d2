"""Bins and boxes."""

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging
from metarl.envs.metaworld.picking import approach, pick_and_place_v1
from metarl.envs.metaworld.rewards import (
    Flags,
    Scalars,
    close_quaternion,
    distance,
    funnel,
    hamacher_product,
    lifting,
    long_tail,
    norm,
    peaked,
)
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import FRAME_SKIP, Simulation, Vector, single
from metarl.envs.physics import constant


class BinPicking(SawyerTask):
    """A cube is to be moved from one bin to the other; hand and cube should pass over the bins' walls.

    The distance that progress is measured by is the one after the first step, kept for the episode.
    """

    name = "bin-picking-v3"
    model = "sawyer_bin_picking"
    hand_low = (-0.5, 0.40, 0.07)
    vec_low = (-0.21, 0.65, 0.02, 0.1199, 0.699, -0.001)  # cube, unused
    vec_high = (-0.03, 0.75, 0.02, 0.1201, 0.701, 0.001)
    goal_low, goal_high = (0.1199, 0.699, -0.001), (0.1201, 0.701, 0.001)

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        cube = concatenate(vec[:2], sim.body("obj")[2:])
        sim.set_object(cube)
        return {"target": sim.body("bin_goal"), "obj_init": cube, "first_to_target": -1.0}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("obj"), scene.body_quat("obj")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_hand, to_target = distance(obj, scene.hand), distance(obj, scene.target)
        first = scene.episode["first_to_target"]
        first.copy_(torch.where(first < 0, to_target, first))
        in_place = long_tail(to_target, 0.05, first)
        grasped = caging(
            scene,
            obj,
            obj_radius=0.015,
            pad_success_thresh=0.05,
            xz_thresh=0.01,
            desired_gripper_effort=0.7,
            density="high",
        )
        reward = hamacher_product(grasped, in_place)
        in_hand = (to_hand < 0.04) & (obj[:, 2] - 0.02 > scene.obj_init[:, 2]) & (scene.opened >= 0.43)
        carried = 1.0 + 5.0 * hamacher_product(self._above_floor(scene), in_place)
        reward = torch.where(in_hand, reward + carried, reward)
        reward = torch.where(to_target < 0.05, 10.0, reward)
        return Terms(reward, to_hand, to_target, grasped, in_place)

    @staticmethod
    def _above_floor(scene: Scene) -> Scalars:
        """1 where the hand is inside one of two funnels, over the cube's first place and over the goal."""
        radii = (norm((scene.hand - center)[:, :2]) for center in (scene.obj_init, scene.target))
        floor = torch.minimum(*(funnel(radius, 0.03, slope=0.02, height=0.2) for radius in radii))
        return long_tail((floor - scene.hand[:, 2]).clamp(min=0.0), 0.01, 0.05)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        z, rest = obj[:, 2], scene.obj_init[:, 2]
        top = rest + 0.1
        to_target = norm((obj - scene.target)[:, :2])
        placing = peaked(norm((scene.obj_init - scene.target)[:, :2]) + top - to_target, to_target)
        letting_go = -200 * scene.gripper_effort
        lifted, held = z >= top - 0.01, distance(obj, scene.tcp) < 0.1
        over_bin = ((obj - scene.target)[:, :2].abs() < 0.05).all(-1)
        carrying = torch.where(over_bin, letting_go + placing, placing)
        reward = approach(scene, obj, beside=0.06, climb=1.0)
        reward = reward + lifting(z, rest, top, lifted=lifted, held=held) + torch.where(lifted & held, carrying, 0.0)
        reward = torch.where(over_bin & (z < rest + 0.05), letting_go + placing, reward)
        return Terms(reward, torch.inf, to_target)


class BoxClose(SawyerTask):
    """A lid is to be put on a box, the right way up. No distance is reported; success has a radius of its own."""

    name = "box-close-v3"
    model = "sawyer_box"
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.05, 0.5, 0.02, -0.1, 0.7, 0.133)  # lid, goal
    vec_high = (0.05, 0.55, 0.02, 0.1, 0.8, 0.133)
    goal_low, goal_high = (-0.1, 0.7, 0.133), (0.1, 0.8, 0.133)
    min_distance = 0.25

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        lid = concatenate(vec[:2], single(0.02))
        sim.move_body("boxbody", concatenate(vec[3:5], sim.body("boxbody")[2:]))
        mujoco.mj_step(sim.model, sim.data, FRAME_SKIP)
        sim.set_object(lid)
        return {"target": vec[3:], "obj_init": lid, "handle_height": sim.geom("BoxHandleGeom")[2]}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("top_link"), scene.body_quat("top_link")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        effort = ((scene.gripper_effort.clamp(-1.0, 1.0) + 1.0) / 2.0).clamp(0.0, 1.0)
        grip = obj + constant(obj, (0.0, 0.0, 0.02))
        ready = self._ready(scene.hand, grip)
        scale = constant(obj, (1.0, 1.0, 3.0))
        placed = long_tail(norm((scene.target - grip) * scale), 0.05, 0.25)
        lifted = (grip[:, 2] > 0.04).to(obj)
        in_place = 0.2 * lifted + 0.8 * placed
        reward = 2.0 * hamacher_product(effort, ready) + 8.0 * in_place
        reward = torch.where(distance(obj, scene.target) < 0.08, 10.0, reward)
        reward = reward * close_quaternion(scene.body_quat("top_link"), (0.707, 0.0, 0.0, 0.707), margin=0.2)
        return Terms(reward, ready, 0.0, effort, in_place)

    @staticmethod
    def _ready(hand: Points, grip: Points) -> Scalars:
        """Hand at the lid's handle, having come from above: a funnel around the handle is its floor."""
        floor = funnel(norm((hand - grip)[:, :2]), 0.02, slope=0.04, height=0.4)
        above = long_tail((floor - hand[:, 2]).clamp(min=0.0), 0.01, floor / 2.0)
        return hamacher_product(above, long_tail(distance(hand, grip), 0.02, 0.5))

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        terms = pick_and_place_v1(scene, obj, 0.12, height=scene.episode["handle_height"])
        return terms._replace(obj_to_target=0.0)

    def success(self, scene: Scene, terms: Terms) -> Flags:
        return distance(scene.body("top_link"), scene.target) < 0.08
