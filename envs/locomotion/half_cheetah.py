"""The half-cheetah body, its clocks and observations; the tasks are in the files beside this one.

Observation (17 numbers; the 20 of ``include_com`` append the last row):

| index | meaning                                                              | unit  |
|-------|----------------------------------------------------------------------|-------|
| 0     | height of the torso above its initial one                            | m     |
| 1     | pitch of the torso                                                   | rad   |
| 2-7   | joint angles: back thigh, shin, foot, front thigh, shin, foot        | rad   |
| 8-9   | velocity of the torso along x and z                                  | m/s   |
| 10    | pitch rate of the torso                                              | rad/s |
| 11-16 | joint velocities, in the order of 2-7                                | rad/s |
| 17-19 | center of mass of the whole body, world frame                        | m     |

Action: 6 torques in [-1, 1], scaled by the gears 120, 90, 60, 120, 60, 30 N m.

Two clocks exist in the literature. rllab (Duan et al. 2016), which MAML 2017 used, takes one substep of 0.01 s a
control step and resets with N(0, 0.01) on positions; Gym takes 5 substeps and resets with U(-0.1, 0.1). 200 steps
are 2 s on one and 10 s on the other: returns of different clocks do not compare.
"""

import functools
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal
from metarl.envs.draws import normal_like, uniform_like
from metarl.envs.locomotion.running import Running
from metarl.envs.mujoco_task import ASSETS
from metarl.envs.physics import Physics, write
from metarl.envs.signals import point, positions, velocities

XML = ASSETS / "half_cheetah.xml"
TORSO = 1


@dataclass(frozen=True)
class HalfCheetah(Running):
    """What the half-cheetah's tasks share. Reward: progress(forward velocity) - control_cost * |action|^2."""

    horizon: int = 200
    """Steps of an episode."""
    frame_skip: int = 5
    """Substeps of 0.01 s a control step."""
    velocity: Literal["finite_difference", "center_of_mass"] = "finite_difference"
    """Forward velocity in the reward: torso displacement over the step, or velocity of the center of mass after it."""
    include_com: bool = False
    """Append the center of mass to the observation (20 numbers in place of 17)."""
    reset_noise: Literal["gym", "rllab"] = "gym"
    """Initial positions: U(-0.1, 0.1) (gym) or N(0, 0.01) (rllab); velocities are N(0, 0.1) in both."""
    control_cost: float = 0.05
    """Weight of the squared action in the reward."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            obs_dim=20 if self.include_com else 17,
            action_dim=6,
            horizon=self.horizon,
            terminates=False,
            has_success=False,
        )

    def model(self) -> mujoco.MjModel:
        return compile_model(com_velocity_sensor=self.velocity == "center_of_mass")

    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
        if self.reset_noise == "gym":
            position = 0.2 * uniform_like(qpos, generator) - 0.1
        else:
            position = 0.01 * normal_like(qpos, generator)
        write(qpos, mask, qpos + position)
        write(qvel, mask, qvel + 0.1 * normal_like(qvel, generator))

    def observe(self, physics: Physics) -> Float[Tensor, "world obs"]:
        parts = [physics.bind("qpos")[:, 1:], physics.bind("qvel")]
        if self.include_com:
            parts.append(physics.bind("subtree_com")[:, TORSO])
        return torch.cat(parts, dim=1)

    def observed(self, model: mujoco.MjModel) -> list[Signal]:
        found = positions(model)[1:] + velocities(model)
        return found + point("center of mass") if self.include_com else found

    def measure(self, physics: Physics) -> Float[Tensor, " world"]:
        """Where the velocity is a finite difference, the torso's x [m]; else the center of mass' velocity [m/s]."""
        if self.velocity == "finite_difference":
            return physics.bind("qpos")[:, 0].clone()
        return physics.bind("sensordata")[:, 0].clone()

    def forward_velocity(self, physics: Physics, before: Float[Tensor, " world"]) -> Float[Tensor, " world"]:
        """Forward velocity of this step [m/s]."""
        after = self.measure(physics)
        if self.velocity == "finite_difference":
            return (after - before) / (physics.timestep * self.frame_skip)
        return after

    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, " world"],
        action: Float[Tensor, "world 6"],
        task: Float[Tensor, "world ..."],
    ) -> Float[Tensor, " world"]:
        progress = self.progress(self.forward_velocity(physics, before), task)
        return progress - self.control_cost * self.charged(action, task).square().sum(1)


@functools.cache
def compile_model(*, com_velocity_sensor: bool) -> mujoco.MjModel:
    """Gymnasium's half-cheetah, with a sensor of the center of mass' velocity where the reward needs it."""
    spec = mujoco.MjSpec.from_file(str(XML))
    if com_velocity_sensor:
        spec.add_sensor(type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="compiler attribute 'settotalmass' is deprecated")
        return spec.compile()


RLLAB: dict[str, Any] = {
    "frame_skip": 1,
    "velocity": "center_of_mass",
    "include_com": True,
    "reset_noise": "rllab",
    "horizon": 200,
}
"""The rllab environment of cbfinn/maml_rl (``half_cheetah_env_rand*.py`` on ``mujoco_env.py``)."""
