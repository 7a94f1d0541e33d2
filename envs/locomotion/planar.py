"""What the walker and the hopper share: bodies of legs in the x-z plane that must not fall.

Observation: positions without x, then velocities clipped to [-10, 10]; the tables are with the bodies.
Termination: torso height or pitch outside the body's open interval (:attr:`Planar.heights`, :attr:`Planar.pitches`).
Initial state: the model's own, each position and velocity + U(-0.005, 0.005).
"""

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal
from metarl.envs.draws import uniform_like
from metarl.envs.fields import require
from metarl.envs.locomotion.running import Running
from metarl.envs.mujoco_task import ASSETS
from metarl.envs.physics import Physics, write
from metarl.envs.signals import positions, velocities

RESET_NOISE = 0.005


@dataclass(frozen=True)
class Planar(Running):
    """Reward: progress(torso displacement / time) + alive_bonus - control_cost * |action|^2."""

    heights: ClassVar[tuple[float, float]]
    """A torso outside has fallen or flown away [m]."""
    pitches: ClassVar[tuple[float, float]]
    """A torso outside has fallen [rad]."""

    horizon: int = 200
    """Steps of an episode."""
    frame_skip: int = 4
    """Substeps of ``timestep`` a control step."""
    timestep: float = 0.002
    """Seconds of a substep."""
    alive_bonus: float = 1.0
    """Reward of a step that ends upright."""
    bonus_at_the_end: bool = True
    """Whether the step that ends in a fall earns the bonus too: so before Gymnasium's v5."""
    control_cost: float = 0.001
    """Weight of the squared action in the reward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "timestep", above=0)

    @property
    @abstractmethod
    def xml(self) -> str:
        """Which of Gymnasium's models it is."""

    @property
    def spec(self) -> EnvSpec:
        model = self.model()
        return EnvSpec(
            obs_dim=model.nq - 1 + model.nv,
            action_dim=model.nu,
            horizon=self.horizon,
            terminates=True,
            has_success=False,
        )

    def model(self) -> mujoco.MjModel:
        return compile_model(self.xml, self.timestep)

    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        for field in (physics.bind("qpos"), physics.bind("qvel")):
            noise = (2 * uniform_like(field, generator) - 1) * RESET_NOISE
            write(field, mask, field + noise)

    def observe(self, physics: Physics) -> Float[Tensor, "world obs"]:
        return torch.cat([physics.bind("qpos")[:, 1:], physics.bind("qvel").clamp(-10.0, 10.0)], dim=1)

    def observed(self, model: mujoco.MjModel) -> list[Signal]:
        return positions(model)[1:] + velocities(model)

    def measure(self, physics: Physics) -> Float[Tensor, " world"]:
        """The torso's x [m]."""
        return physics.bind("qpos")[:, 0].clone()

    def upright(self, physics: Physics) -> Bool[Tensor, " world"]:
        """Where the torso's height and pitch are those of a body that stands."""
        height, pitch = physics.bind("qpos")[:, 1], physics.bind("qpos")[:, 2]
        return _inside(height, self.heights) & _inside(pitch, self.pitches)

    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, " world"],
        action: Float[Tensor, "world act"],
        task: Float[Tensor, "world ..."],
    ) -> Float[Tensor, " world"]:
        velocity = (self.measure(physics) - before) / (physics.timestep * self.frame_skip)
        bonus = self.alive_bonus if self.bonus_at_the_end else self.alive_bonus * self.upright(physics)
        cost = self.control_cost * self.charged(action, task).square().sum(1)
        return self.progress(velocity, task) + bonus - cost

    def terminated(self, physics: Physics, task: Float[Tensor, "world ..."]) -> Bool[Tensor, " world"]:
        return ~self.upright(physics)


@functools.cache
def compile_model(xml: str, timestep: float) -> mujoco.MjModel:
    """One of Gymnasium's models at another clock."""
    spec = mujoco.MjSpec.from_file(str(ASSETS / xml))
    spec.option.timestep = timestep
    return spec.compile()


def _inside(x: Float[Tensor, " world"], interval: tuple[float, float]) -> Bool[Tensor, " world"]:
    return (x > interval[0]) & (x < interval[1])


V5: dict[str, Any] = {"horizon": 1000, "bonus_at_the_end": False}
"""Gymnasium's Walker2d-v5 and Hopper-v5."""
RAND_PARAM_ENVS: dict[str, Any] = {"timestep": 0.004, "frame_skip": 4, "horizon": 200}
"""Lee's rand_param_envs (github.com/dennisl88/rand_param_envs), which ran on MuJoCo 1.31.

Its models (``gym/envs/mujoco/assets``) take substeps of 0.004 s, twice Gym's, and ``base.py`` takes 4 of them
whatever its ``frame_skip`` argument says: 200 steps are 3.2 s.
"""
