"""Dunking a basketball."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.metaworld.caging import caging
from metarl.envs.metaworld.picking import in_hand, pick_and_place_v1
from metarl.envs.metaworld.rewards import distance, hamacher_product, long_tail, norm
from metarl.envs.metaworld.sawyer import SawyerTask, Terms, concatenate
from metarl.envs.metaworld.scene import Points, Scene
from metarl.envs.metaworld.simulation import Simulation, Vector, single
from metarl.envs.physics import constant


class Basketball(SawyerTask):
    """The ball is to be held in the hoop, or a little above."""

    name = "basketball-v3"
    model = "sawyer_basketball"
    hand_init = single(0, 0.6, 0.2)
    vec_low = (-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0)  # ball, foot of the basket
    vec_high = (0.1, 0.7, 0.0301, 0.1, 0.9 + 1e-7, 0.0)
    goal_low = (-0.1, 0.85 - 0.083, 0.2499)
    goal_high = (0.1, 0.9 + 1e-7 - 0.083, 0.2501)
    success_radius = 0.08
    min_distance = 0.15

    def reset(self, sim: Simulation, vec: Vector) -> dict[str, Vector | float]:
        ball = concatenate(vec[:2], single(0.03))
        sim.move_body("basket_goal", vec[3:])
        sim.set_object(ball)
        return {"target": sim.site("goal"), "obj_init": ball}

    def objects(self, scene: Scene) -> Float[Tensor, "world n"]:
        return torch.cat([scene.body("bsktball"), scene.body_quat("bsktball")], dim=-1)

    def reward(self, scene: Scene, obj: Points) -> Terms:
        to_obj = distance(obj, scene.tcp)
        above_hoop = torch.cat([scene.target[:, :2], obj.new_full((len(obj), 1), 0.3)], dim=-1)
        scale = constant(obj, (1.0, 1.0, 2.0))
        to_target = norm((obj - above_hoop) * scale)
        in_place = long_tail(to_target, 0.08, norm((scene.obj_init - above_hoop) * scale))
        grasped = caging(scene, obj, obj_radius=0.025, pad_success_thresh=0.06, xz_thresh=0.005, density="high")
        lifted = in_hand(scene, obj, 0.035, 0.01)
        grasped = torch.where(lifted, 1.0, grasped)
        reward = hamacher_product(grasped, in_place)
        reward = torch.where(lifted, reward + 1.0 + 5.0 * in_place, reward)
        reward = torch.where(to_target < 0.08, 10.0, reward)
        return Terms(reward, to_obj, to_target, grasped, in_place)

    def reward_v1(self, scene: Scene, obj: Points) -> Terms:
        return pick_and_place_v1(scene, obj, 0.3)
