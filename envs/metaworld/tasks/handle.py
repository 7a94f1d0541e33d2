"""A handle that slides up and down on a box."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging
from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import Scalars, distance, hamacher_product, long_tail
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector

UP, DOWN = -0.001, -0.1  # m, positions of the sliding joint
AHEAD, SIDEWAYS = "sawyer_handle_press", "sawyer_handle_press_sideways"


class Handle(SawyerTask):
    """What pressing and pulling share."""

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.site("leftEndEffector"))
        to_target = (obj[:, 2] - scene.target[:, 2]).abs()
        return reach_and_move_v1(to_obj, to_target, scene.episode["farthest"])


def place(sim: Simulation, vec: Vector, height: float) -> None:
    sim.move_body("box", vec)
    sim.set_object(height, qvel=slice(9, 10))


class Press(Handle):
    """Press the handle down."""

    success_radius = 0.02

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        place(sim, vec, UP)
        target, handle = sim.site("goalPress"), sim.site("handleStart")
        return {"target": target, "obj_init": handle, "farthest": abs(handle[2] - target[2])}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return scene.site("handleStart")

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.tcp)
        to_target = (obj[:, 2] - scene.target[:, 2]).abs()
        radius = self.success_radius
        in_place = long_tail(to_target, radius, (scene.episode["farthest"] - radius).abs())
        reach = long_tail(to_obj, 0.02, (distance(scene.obj_init, scene.init_tcp) - 0.02).abs())
        reward = torch.where(to_target <= radius, 10.0, 10 * hamacher_product(reach, in_place))
        return Terms(reward, to_obj, to_target, reach, in_place)


class HandlePress(Press):
    """Press the handle down; the box stands in front of the arm."""

    name = "handle-press-v3"
    model = AHEAD
    vec_low = (-0.1, 0.8, -0.001)  # box
    vec_high = (0.1, 0.9, 0.001)
    goal_low, goal_high = (-0.1, 0.55, 0.04), (0.1, 0.70, 0.08)


class HandlePressSide(Press):
    """Press the handle down; the box stands at the left."""

    name = "handle-press-side-v3"
    model = SIDEWAYS
    vec_low = (-0.35, 0.65, -0.001)  # box
    vec_high = (-0.25, 0.75, 0.001)


class HandlePull(Handle):
    """Pull the handle up; the box stands in front of the arm."""

    name = "handle-pull-v3"
    model = AHEAD
    vec_low = (-0.1, 0.8, -0.001)  # box
    vec_high = (0.1, 0.9, 0.001)
    goal_low, goal_high = (-0.1, 0.55, 0.04), (0.1, 0.70, 0.18)

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        place(sim, vec, DOWN)
        target = sim.site("goalPull")
        farthest = abs(sim.model.site("handleStart").pos[2] - target[2])  # the height on the handle, not in the world
        return {"target": target, "obj_init": vec, "farthest": farthest}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return scene.site("handleRight")

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_target = (scene.target[:, 2] - obj[:, 2]).abs()
        in_place = long_tail(to_target, 0.05, (scene.target[:, 2] - scene.obj_init[:, 2]).abs())
        grasped = caging(scene, obj, obj_radius=0.022, pad_success_thresh=0.05, xz_thresh=0.01, density="high")
        pulled = obj[:, 1] - 0.01 > scene.obj_init[:, 2]  # y against z, as Meta-World has it: nearly always
        return pulling(scene, obj, to_target, grasped, in_place, pulled)


class HandlePullSide(Handle):
    """Pull the handle up; the box stands at the left."""

    name = "handle-pull-side-v3"
    model = SIDEWAYS
    vec_low = (-0.35, 0.65, 0.0)  # box
    vec_high = (-0.25, 0.75, 0.0)
    success_radius = 0.08

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        place(sim, vec, DOWN)
        target = sim.site("goalPull")
        farthest = abs(sim.site("handleStart")[2] - target[2])
        return {"target": target, "obj_init": sim.site("handleCenter"), "farthest": farthest}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return scene.site("handleCenter")

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_target = distance(obj, scene.target)
        in_place = long_tail(to_target, 0.05, distance(scene.obj_init, scene.target))
        grasped = caging(scene, obj, obj_radius=0.032, pad_success_thresh=0.06, xz_thresh=0.01, density="high")
        pulled = obj[:, 2] - 0.01 > scene.obj_init[:, 2]
        return pulling(scene, obj, to_target, grasped, in_place, pulled)


def pulling(
    scene: Scene, obj: Points, to_target: Scalars, grasped: Scalars, in_place: Scalars, pulled: Bool[Tensor, " world"]
) -> Terms:
    """Version 2 of both: grasp and goal, more of it where the handle moves, all of it within 5 cm."""
    to_obj = distance(obj, scene.tcp)
    held = (to_obj < 0.035) & (scene.opened > 0) & pulled
    reward = hamacher_product(grasped, in_place) + torch.where(held, 1.0 + 5.0 * in_place, 0.0)
    return Terms(torch.where(to_target < 0.05, 10.0, reward), to_obj, to_target, grasped, in_place)
