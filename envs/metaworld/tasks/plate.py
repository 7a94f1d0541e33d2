"""A plate that slides over the table into a cabinet or out of it."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import flat, reach_and_move_v1
from metarl.envs.metaworld.rewards import distance, hamacher_product, long_tail
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene, quaternion_of
from metarl.envs.metaworld.simulation import Simulation, Vector, flat_distance, single

AHEAD, SIDEWAYS = "sawyer_plate_slide", "sawyer_plate_slide_sideway"
RADIUS = 0.05  # m within which version 2 takes the plate for there, and the hand for at the plate


class Plate(SawyerTask):
    """Slide the plate to the goal. The reward of version 2 is that of three of the four."""

    hand_init = single(0, 0.6, 0.2)
    success_radius = 0.07
    start: ClassVar[tuple[float, float]] = (0.0, 0.0)
    """Where the plate is at first, as positions of its two sliding joints [m]."""

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.set_object(self.start, qvel=slice(0))
        farthest = flat_distance(self.plate_init(sim, vec), vec[3:])
        return {"target": vec[3:], "obj_init": vec[:3], "farthest": farthest}

    def plate_init(self, sim: Simulation, vec: Vector) -> Vector:
        """Where version 1 says that the plate was at first."""
        return vec[:3]

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.geom("puck"), quaternion_of(scene.geom_matrix("puck"))], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(scene.tcp, obj), distance(obj, scene.target)
        in_place = long_tail(to_target, RADIUS, distance(scene.obj_init, scene.target) - RADIUS)
        reach = long_tail(to_obj, RADIUS, distance(scene.init_tcp, scene.obj_init) - RADIUS)
        sliding = (scene.tcp[:, 2] <= 0.03) & (to_obj < 0.07)
        reward = torch.where(sliding, 2.0 + 7.0 * in_place, 1.5 * reach)
        return Terms(torch.where(to_target < RADIUS, 10.0, reward), to_obj, to_target, reach, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return reach_and_move_v1(distance(scene.tcp, obj), flat(obj, scene.target), scene.episode["farthest"])


class PlateSlide(Plate):
    """Slide the plate forward into the cabinet."""

    name = "plate-slide-v3"
    model = AHEAD
    vec_low = (0.0, 0.6, 0.0, -0.1, 0.85, 0.0)  # plate, cabinet
    vec_high = (0.0, 0.6, 0.0, 0.1, 0.9, 0.0)
    goal_low, goal_high = vec_low[3:], vec_high[3:]

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("puck_goal", vec[3:])
        return super().reset(sim, vec)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj, to_target = distance(scene.tcp, obj), distance(obj, scene.target)
        in_place = long_tail(to_target, RADIUS, distance(scene.obj_init, scene.target))
        reach = long_tail(to_obj, RADIUS, distance(scene.init_tcp, scene.obj_init))
        reward = torch.where(to_target < RADIUS, 10.0, 8 * hamacher_product(reach, in_place))
        return Terms(reward, to_obj, to_target, reach, in_place)


class PlateSlideSide(Plate):
    """Slide the plate to the left; the cabinet there does not move with the goal."""

    name = "plate-slide-side-v3"
    model = SIDEWAYS
    vec_low = (0.0, 0.6, 0.0, -0.3, 0.54, 0.0)  # plate, goal
    vec_high = (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)
    goal_low, goal_high = vec_low[3:], vec_high[3:]


class PlateSlideBack(Plate):
    """Slide the plate out of the cabinet, towards the arm."""

    name = "plate-slide-back-v3"
    model = AHEAD
    vec_low = (0.0, 0.85, 0.0, -0.1, 0.6, 0.015)  # where version 2 says that the plate was at first, goal
    vec_high = (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)
    goal_low, goal_high = vec_low[3:], vec_high[3:]
    start = (0.0, 0.15)

    def plate_init(self, sim: Simulation, vec: Vector) -> Vector:
        return sim.geom("puck")


class PlateSlideBackSide(PlateSlideBack):
    """Slide the plate out of the cabinet, to the right."""

    name = "plate-slide-back-side-v3"
    model = SIDEWAYS
    vec_low = (-0.25, 0.6, 0.0, -0.05, 0.6, 0.015)  # cabinet, goal
    vec_high = (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)
    goal_low, goal_high = vec_low[3:], vec_high[3:]
    start = (-0.15, 0.0)

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("puck_goal", vec[:3])
        return super().reset(sim, vec)
