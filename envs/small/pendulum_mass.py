"""Swinging up a pendulum of unknown mass (RLlib).

Observation (3 numbers), theta = 0 upright:

| index | meaning              | unit  |
|-------|----------------------|-------|
| 0     | cos theta            |       |
| 1     | sin theta            |       |
| 2     | angular velocity     | rad/s |

Action: a torque, [-1, 1] for [-2, 2] N m.
Task parameter: mass m [kg] of the rod (1 m long, homogeneous), uniform in [min_mass, max_mass].
Reward: -(theta^2 + 0.1 theta'^2 + 0.001 torque^2), theta in [-pi, pi), angle and velocity those before the step.
Never terminates, horizon 200. Initial state: theta ~ U(-pi, pi), theta' ~ U(-1, 1).
Source: ray-project/ray ``rllib/examples/env/pendulum_mass.py`` on Gym's Pendulum (g = 10 m/s^2), horizon of
``rllib/tuned_examples/maml/pendulum-mass-maml.yaml``.

MuJoCo's Euler step is Gym's update of this system. Gym also limits the velocity to 8 rad/s; here it has no limit.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal
from metarl.envs.draws import uniform_like
from metarl.envs.fields import BadField
from metarl.envs.locomotion.random_dynamics import scale_field
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.physics import Physics, write
from metarl.envs.registry import TaskDistribution
from metarl.envs.signals import velocities

MAX_TORQUE = 2.0  # N m
XML = f"""
<mujoco model="pendulum">
  <option timestep="0.05" gravity="0 0 -10"> <flag contact="disable"/> </option>
  <worldbody>
    <body name="rod">
      <joint name="pivot" axis="0 1 0"/>
      <inertial pos="0 0 0.5" mass="1" diaginertia="{1 / 12} {1 / 12} 0.001"/>
      <geom type="capsule" fromto="0 0 0 0 0 1" size="0.05" rgba="0.8 0.3 0.3 1"/>
    </body>
  </worldbody>
  <actuator> <motor joint="pivot" ctrllimited="true" ctrlrange="-{MAX_TORQUE} {MAX_TORQUE}"/> </actuator>
</mujoco>
"""
"""A rod of 1 kg: a mass in kg is its multiplier."""


@dataclass(frozen=True)
class PendulumMass(MujocoTask):
    """Preset: rllib."""

    name: ClassVar[str] = "pendulum_mass"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    parameter_names: ClassVar[tuple[str, ...]] = ("rod mass",)

    horizon: int = 200
    """Steps of an episode, of 0.05 s each."""
    min_mass: float = 0.5
    """Masses are uniform in [min_mass, max_mass] [kg]."""
    max_mass: float = 2.0
    """Masses are uniform in [min_mass, max_mass] [kg]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_mass <= self.max_mass:
            raise BadField(f"min_mass is {self.min_mass}, max_mass {self.max_mass}: use 0 < min_mass <= max_mass")

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(obs_dim=3, action_dim=1, horizon=self.horizon, terminates=False, has_success=False)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
        u = torch.rand(num_tasks, generator=generator, device=generator.device)
        return self.min_mass + (self.max_mass - self.min_mass) * u

    def in_words(self, task: Float[Tensor, ""]) -> str:
        return f"swing up a rod of {float(task):.2f} kg"

    def model(self) -> mujoco.MjModel:
        return compile_model()

    def apply_task(self, physics: Physics, task: Float[Tensor, " world"]) -> None:
        for field, numbers in (("body_mass", 2), ("body_inertia", 6)):  # of two bodies, the world and the rod
            scale_field(physics, self.model(), field, task[:, None].expand(-1, numbers))
        physics.set_const()

    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        for field, bound in (("qpos", math.pi), ("qvel", 1.0)):
            x = physics.bind(field)
            write(x, mask, (2 * uniform_like(x, generator) - 1) * bound)

    def observe(self, physics: Physics) -> Float[Tensor, "world 3"]:
        theta = physics.bind("qpos")
        return torch.cat([theta.cos(), theta.sin(), physics.bind("qvel")], dim=1)

    def observed(self, model: mujoco.MjModel) -> list[Signal]:
        return [Signal("cos theta"), Signal("sin theta"), *velocities(model)]

    def measure(self, physics: Physics) -> Float[Tensor, "world 2"]:
        """Angle [rad] and angular velocity [rad/s]."""
        return torch.cat([physics.bind("qpos"), physics.bind("qvel")], dim=1)

    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, "world 2"],
        action: Float[Tensor, "world 1"],
        task: Float[Tensor, " world"],
    ) -> Float[Tensor, " world"]:
        theta = (before[:, 0] + math.pi).remainder(2 * math.pi) - math.pi
        return -(theta**2 + 0.1 * before[:, 1] ** 2 + 0.001 * (MAX_TORQUE * action[:, 0]) ** 2)


@functools.cache
def compile_model() -> mujoco.MjModel:
    return mujoco.MjSpec.from_string(XML).compile()


PendulumMass.presets = {"rllib": PendulumMass()}
