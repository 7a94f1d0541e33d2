"""Swimmer at a goal velocity (cbfinn/maml_rl, in code but not in the paper; Rothfuss et al. 2019, in code).

Observation, rows in this order; 8 numbers, or 13 with ``include_position``:

| numbers | meaning                                                               | unit  |
|---------|-----------------------------------------------------------------------|-------|
| 2       | ``include_position``: x and y of the front body                       | m     |
| 1       | angle of the front body                                               | rad   |
| 2       | joint angles: middle, back                                            | rad   |
| 2       | velocity of the front body along x and y                              | m/s   |
| 1       | angular velocity of the front body                                    | rad/s |
| 2       | joint velocities                                                      | rad/s |
| 3       | ``include_position``: center of mass of the whole body                | m     |

Action: 2 torques in [-1, 1], scaled by 150 N m, or by 50 N m for rllab's body.
Task parameter: goal velocity g [m/s] along x, uniform in [0.1, 0.2].
Reward: -velocity_weight * |velocity along x - g| - control_cost * |action|^2. Never terminates.

Definitions: cbfinn/maml_rl ``rllab/envs/mujoco/swimmer_randgoal_env.py`` with ``vendor/mujoco_models/swimmer.xml``;
jonasrothfuss/ProMP ``meta_policy_search/envs/mujoco_envs/swimmer_rand_vel.py``; Gymnasium's ``swimmer_v5.py``.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal
from metarl.envs.draws import normal_like, uniform_like
from metarl.envs.fields import BadField
from metarl.envs.mujoco_task import ASSETS, MujocoTask
from metarl.envs.physics import Physics, write
from metarl.envs.registry import TaskDistribution
from metarl.envs.signals import point, positions, velocities

XML = ASSETS / "swimmer.xml"
FRONT = 1


@dataclass(frozen=True)
class SwimmerVel(MujocoTask):
    """Presets: maml2017 (cbfinn/maml_rl; its reset reads an attribute that does not exist unless it is given a goal),
    promp (jonasrothfuss/ProMP, with its bug: the sign of the reward, which pays distance from the goal velocity), v5
    (Gymnasium's Swimmer-v5 with its forward reward replaced).
    """

    name: ClassVar[str] = "swimmer_vel"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    parameter_names: ClassVar[tuple[str, ...]] = ("goal velocity",)

    horizon: int = 1000
    """Steps of an episode."""
    frame_skip: int = 4
    """Substeps a control step."""
    body: Literal["gym", "rllab"] = "gym"
    """gym: substeps of 0.01 s by Runge-Kutta, armature in the joints, U(-0.1, 0.1) on initial positions and
    velocities. rllab: substeps of 0.001 s by Euler, no armature, N(0, 0.01) on positions and N(0, 0.1) on
    velocities; the center of mass makes progress, at its velocity after the step, in place of the front's
    displacement."""
    include_position: bool = False
    """Observe x, y and the center of mass (13 numbers in place of 8)."""
    min_velocity: float = 0.1
    """Slowest goal velocity [m/s]."""
    max_velocity: float = 0.2
    """Fastest goal velocity [m/s]; they are uniform."""
    velocity_weight: float = 1.0
    """Weight of the distance from the goal velocity, which the reward subtracts."""
    control_cost: float = 1e-4
    """Weight of the squared action."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_velocity >= self.max_velocity:
            raise BadField(f"min_velocity is {self.min_velocity}: use less than max_velocity, {self.max_velocity}")

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            obs_dim=13 if self.include_position else 8,
            action_dim=2,
            horizon=self.horizon,
            terminates=False,
            has_success=False,
        )

    def model(self) -> mujoco.MjModel:
        return compile_model(rllab=self.body == "rllab")

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
        draw = torch.rand(num_tasks, generator=generator, device=generator.device)
        return self.min_velocity + draw * (self.max_velocity - self.min_velocity)

    def in_words(self, task: Float[Tensor, ""]) -> str:
        return f"swim at {float(task):.2f} m/s"

    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        for field, scale in ((physics.bind("qpos"), 0.01), (physics.bind("qvel"), 0.1)):
            if self.body == "gym":
                noise = 0.2 * uniform_like(field, generator) - 0.1
            else:
                noise = scale * normal_like(field, generator)
            write(field, mask, field + noise)

    def observe(self, physics: Physics) -> Float[Tensor, "world obs"]:
        qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
        if self.include_position:
            return torch.cat([qpos, qvel, physics.bind("subtree_com")[:, FRONT]], dim=1)
        return torch.cat([qpos[:, 2:], qvel], dim=1)

    def observed(self, model: mujoco.MjModel) -> list[Signal]:
        if self.include_position:
            return positions(model) + velocities(model) + point("center of mass")
        return positions(model)[2:] + velocities(model)

    def measure(self, physics: Physics) -> Float[Tensor, " world"]:
        """The front's x [m], or the center of mass' velocity along x [m/s]."""
        return (physics.bind("qpos") if self.body == "gym" else physics.bind("sensordata"))[:, 0].clone()

    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, " world"],
        action: Float[Tensor, "world 2"],
        task: Float[Tensor, " world"],
    ) -> Float[Tensor, " world"]:
        velocity = self.measure(physics)
        if self.body == "gym":
            velocity = (velocity - before) / (physics.timestep * self.frame_skip)
        return -self.velocity_weight * (velocity - task).abs() - self.control_cost * action.square().sum(1)


@functools.cache
def compile_model(*, rllab: bool) -> mujoco.MjModel:
    """Gymnasium's swimmer, or rllab's, with a sensor of the center of mass' velocity."""
    spec = mujoco.MjSpec.from_file(str(XML))
    if rllab:
        spec.option.timestep = 0.001
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
        spec.option.iterations = 1000
        spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
        for joint in spec.joints:
            joint.armature = 0.0
        for actuator in spec.actuators:
            actuator.gear[0] = 50.0
        spec.add_sensor(type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso")
    return spec.compile()


SwimmerVel.presets = {
    "maml2017": SwimmerVel(
        horizon=200, frame_skip=50, body="rllab", include_position=True, velocity_weight=1.5, control_cost=0.005
    ),
    "promp": SwimmerVel(horizon=200, velocity_weight=-1.0),
    "v5": SwimmerVel(),
}
