"""Balancing a pole of unknown mass on a cart of unknown mass (RLlib).

Observation (4 numbers), theta = 0 upright:

| index | meaning                          | unit  |
|-------|----------------------------------|-------|
| 0     | position of the cart             | m     |
| 1     | velocity of the cart             | m/s   |
| 2     | angle theta of the pole          | rad   |
| 3     | angular velocity of the pole     | rad/s |

Action: one of two, as a one-hot vector: push the cart to the left or to the right with 10 N.
Task parameter: masses [kg] of the cart, uniform in [0.5, 2], and of the pole (1 m long, homogeneous), in [0.05, 0.2].
Reward: 1 for each step. Horizon 200.
Termination: the cart further than 2.4 m from the origin, or the pole further than 12 degrees from upright.
Initial state: each of the four numbers ~ U(-0.05, 0.05).
Source: ray-project/ray ``rllib/examples/env/cartpole_mass.py`` on Gym's CartPole, 200 steps as in RLlib's examples.

MuJoCo's Euler step is Gym's ``kinematics_integrator="semi-implicit euler"``: positions move with the velocities after
the step. Gym's default, which RLlib uses, moves them with those before it.
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
from metarl.envs.locomotion.random_dynamics import scale_field
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.physics import Physics, write
from metarl.envs.registry import TaskDistribution
from metarl.envs.signals import positions, velocities

CART_MASS, POLE_MASS = 1.0, 0.1  # kg; the model's own
MASSES = ((0.5, 2.0), (0.05, 0.2))  # kg; from and to of the cart, of the pole
MAX_POSITION, MAX_ANGLE = 2.4, math.radians(12)
XML = f"""
<mujoco model="cartpole">
  <option timestep="0.02" gravity="0 0 -9.8"> <flag contact="disable"/> </option>
  <worldbody>
    <body name="cart">
      <joint name="slider" type="slide" axis="1 0 0"/>
      <inertial pos="0 0 0" mass="{CART_MASS}" diaginertia="1 1 1"/>
      <geom type="box" size="0.25 0.1 0.1" rgba="0.2 0.2 0.2 1"/>
      <body name="pole">
        <joint name="hinge" axis="0 1 0"/>
        <inertial pos="0 0 0.5" mass="{POLE_MASS}" diaginertia="{POLE_MASS / 12} {POLE_MASS / 12} {POLE_MASS / 1000}"/>
        <geom type="capsule" fromto="0 0 0 0 0 1" size="0.05" rgba="0.8 0.6 0.4 1"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="left" joint="slider" gear="-10" ctrllimited="true" ctrlrange="-1 1"/>
    <motor name="right" joint="slider" gear="10" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


@dataclass(frozen=True)
class CartPoleMass(MujocoTask):
    """Preset: rllib."""

    name: ClassVar[str] = "cartpole_mass"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    parameter_names: ClassVar[tuple[str, ...]] = ("cart mass", "pole mass")

    horizon: int = 200
    """Steps of an episode, of 0.02 s each."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(obs_dim=4, action_dim=2, horizon=self.horizon, terminates=True, has_success=False, discrete=True)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        low, high = torch.tensor(MASSES, device=generator.device).T
        return low + (high - low) * torch.rand(num_tasks, 2, generator=generator, device=generator.device)

    def in_words(self, task: Float[Tensor, "2"]) -> str:
        return f"balance a pole of {float(task[1]):.2f} kg on a cart of {float(task[0]):.1f} kg"

    def model(self) -> mujoco.MjModel:
        return compile_model()

    def apply_task(self, physics: Physics, task: Float[Tensor, "world 2"]) -> None:
        cart, pole = task.to(physics.expand("body_mass")).unbind(1)
        multipliers = torch.stack([torch.ones_like(cart), cart / CART_MASS, pole / POLE_MASS], dim=1)
        scale_field(physics, self.model(), "body_mass", multipliers)
        scale_field(physics, self.model(), "body_inertia", multipliers.repeat_interleave(3, dim=1))
        physics.set_const()

    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        for field in (physics.bind("qpos"), physics.bind("qvel")):
            write(field, mask, 0.1 * uniform_like(field, generator) - 0.05)

    def observe(self, physics: Physics) -> Float[Tensor, "world 4"]:
        return torch.stack([physics.bind("qpos"), physics.bind("qvel")], dim=2).flatten(1)

    def observed(self, model: mujoco.MjModel) -> list[Signal]:
        pairs = zip(positions(model), velocities(model), strict=True)
        return [signal for pair in pairs for signal in pair]

    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, "world 0"],
        action: Float[Tensor, "world 2"],
        task: Float[Tensor, "world 2"],
    ) -> Float[Tensor, " world"]:
        return torch.ones_like(physics.bind("qpos")[:, 0])

    def terminated(self, physics: Physics, task: Float[Tensor, "world 2"]) -> Bool[Tensor, " world"]:
        position, angle = physics.bind("qpos").abs().unbind(1)
        return (position > MAX_POSITION) | (angle > MAX_ANGLE)


@functools.cache
def compile_model() -> mujoco.MjModel:
    return mujoco.MjSpec.from_string(XML).compile()


CartPoleMass.presets = {"rllib": CartPoleMass()}
