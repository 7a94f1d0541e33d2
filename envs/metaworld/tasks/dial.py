"""A dial on the table."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.pushing import reach_and_move_v1
from metarl.envs.metaworld.rewards import distance, gaussian, hamacher_product, long_tail
from metarl.envs.metaworld.sawyer import SawyerTask, Terms
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant

KNOB = 0.05  # m, radius of the circle on which the observed point of the dial moves
GOAL = (0.0, 0.03, 0.03)  # m, from the dial's center
PUSH = (0.05, 0.02, 0.09)  # m, from that point to where the hand shall push
PUSH_INIT = (PUSH[0], PUSH[1] - KNOB, PUSH[2])  # m, there at first, from the dial's center


class DialTurn(SawyerTask):
    """Turn the dial with a closed gripper, the hand beside its knob."""

    name = "dial-turn-v3"
    model = "sawyer_dial"
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.1, 0.7, 0.0)  # dial
    vec_high = (0.1, 0.8, 0.0)
    goal_low, goal_high = (-0.1, 0.73, 0.0299), (0.1, 0.83, 0.0301)
    success_radius = 0.07

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        sim.move_body("dial", vec)
        return {"target": vec + GOAL, "push_init": vec + PUSH_INIT}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        angle = scene.joint("knob_Joint_1")
        offset = KNOB * torch.stack([angle.sin(), -angle.cos(), torch.zeros_like(angle)], dim=-1)
        return torch.cat([scene.body("dial") + offset, scene.body_quat("dial")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        push, push_init = obj + constant(obj, PUSH), scene.episode["push_init"]
        to_push, to_target = distance(push, scene.tcp), distance(obj, scene.target)
        radius = self.success_radius
        in_place = long_tail(to_target, radius, (distance(push_init, scene.target) - radius).abs())
        reach = gaussian(to_push, 0.005, (distance(push_init, scene.init_tcp) - 0.005).abs())
        pushing = hamacher_product(reach, scene.gripper_effort.clamp(0.0, 1.0))
        return Terms(10 * hamacher_product(pushing, in_place), to_push, to_target, pushing, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.tcp)
        to_target = (obj[:, 1] - scene.target[:, 1]).abs()
        return reach_and_move_v1(to_obj, to_target, GOAL[1], width=0.001)
