"""The ant body, its clocks, observations and costs; the tasks are in the files beside this one.

Observation, rows in this order; 27 numbers are always there, three options append the others:

| numbers | meaning                                                                                | unit      |
|---------|----------------------------------------------------------------------------------------|-----------|
| 2       | ``include_position``: x and y of the torso                                             | m         |
| 1       | height of the torso                                                                    | m         |
| 4       | orientation of the torso, quaternion w x y z                                           |           |
| 8       | joint angles: hip and ankle of the legs 1 front left, 2 front right, 3 back left, 4    | rad       |
| 3       | velocity of the torso, axes of the world                                               | m/s       |
| 3       | angular velocity of the torso, its own axes                                            | rad/s     |
| 8       | joint velocities                                                                       | rad/s     |
| 84      | ``include_contacts``: torque about the center of mass and force of the contacts on the | N m and N |
|         | world (zeros) and each of 13 bodies, torso and four times three of a leg, in [-1, 1]   |           |
| 9       | ``include_frame``: rotation matrix of the torso                                        |           |
| 3       | ``include_frame``: center of mass of the whole body                                    | m         |

Action: 8 torques in [-1, 1], scaled by 150 N m: hip and ankle of leg 4, then of the legs 1, 2, 3.

Reward: progress + alive bonus - control_cost * |action|^2 - contact_cost * |contacts|^2.
Terminates where the height of the torso leaves ``healthy``.

Definitions: cbfinn/maml_rl ``rllab/envs/mujoco/ant_env_rand*.py`` with ``vendor/mujoco_models/ant.xml``;
jonasrothfuss/ProMP ``meta_policy_search/envs/mujoco_envs/ant_rand_*.py``; katerakelly/oyster (PEARL)
``rlkit/envs/ant*.py``; lmzintgraf/varibad ``environments/mujoco/ant*.py``; Gymnasium's ``ant_v5.py``.

What differs from them:
- Contact forces are those of the state they are observed with (:class:`metarl.envs.locomotion.legged.Legged`). On
MuJoCo 2.0, which PEARL asks for, they were all zero; rllab ran on 1.31 and ProMP on 1.50, which had them.
- Gym and Gymnasium take the torso's velocity from ``xpos``, which is up to one substep old, too; here from ``qpos``.
- ProMP's policies act on [-10, 10], which its wrapper maps to the [-1, 1] of here.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal
from metarl.envs.draws import normal_like, uniform_like
from metarl.envs.locomotion.legged import Legged, add_contact_sensor
from metarl.envs.locomotion.running import Running
from metarl.envs.mujoco_task import ASSETS
from metarl.envs.physics import Physics, write
from metarl.envs.signals import counted, point, positions, velocities

XML = ASSETS / "ant.xml"
TORSO = 1


@dataclass(frozen=True)
class Ant(Legged, Running):
    """Everything the ant tasks share. The defaults are Gymnasium's Ant-v5 without contact forces."""

    horizon: int = 1000
    """Steps of an episode."""
    frame_skip: int = 5
    """Substeps a control step."""
    body: Literal["gym", "rllab"] = "gym"
    """gym: substeps of 0.01 s; starts 0.75 m high with straight legs, U(-0.1, 0.1) on positions. rllab: substeps of
    0.02 s, softer contacts; starts 0.55 m high with bent ankles, N(0, 0.01). Velocities are N(0, 0.1) in both."""
    tracking: Literal["torso", "center_of_mass"] = "torso"
    """What makes progress: the torso, its velocity being the displacement over the step, or the center of mass of the
    whole body, at its velocity after the step."""
    include_position: bool = False
    """Observe the torso's x and y."""
    include_contacts: bool = False
    """Observe the contact forces."""
    include_frame: bool = False
    """Observe the torso's rotation matrix and the center of mass."""
    control_cost: float = 0.5
    """Weight of the squared action."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            obs_dim=27 + 2 * self.include_position + 84 * self.include_contacts + 12 * self.include_frame,
            action_dim=8,
            horizon=self.horizon,
            terminates=self.healthy is not None,
            has_success=False,
        )

    def model(self) -> mujoco.MjModel:
        return compile_model(
            rllab=self.body == "rllab",
            com_velocity_sensor=self.tracking == "center_of_mass",
            contact_sensor=self._reads_contacts and not self.zero_contacts,
        )

    @property
    def _reads_contacts(self) -> bool:
        return self.include_contacts or self.contact_cost > 0

    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        qpos, qvel = physics.bind("qpos"), physics.bind("qvel")
        if self.body == "gym":
            position = qpos + (0.2 * uniform_like(qpos, generator) - 0.1)
        else:
            position = bent_legs(qpos.device, qpos.dtype) + 0.01 * normal_like(qpos, generator)
        write(qpos, mask, position)
        write(qvel, mask, qvel + 0.1 * normal_like(qvel, generator))

    def observe(self, physics: Physics) -> Float[Tensor, "world obs"]:
        qpos = physics.bind("qpos")
        parts = [qpos if self.include_position else qpos[:, 2:], physics.bind("qvel")]
        if self._reads_contacts:
            contacts = self.contacts(physics)  # bound now, also where the cost alone reads them
            if self.include_contacts:
                parts.append(contacts)
        if self.include_frame:
            parts += [physics.bind("xmat")[:, TORSO].flatten(1), physics.bind("subtree_com")[:, TORSO]]
        return torch.cat(parts, dim=1)

    def observed(self, model: mujoco.MjModel) -> list[Signal]:
        found = positions(model)[0 if self.include_position else 2 :] + velocities(model)
        if self.include_contacts:
            found += counted("contact force", range(84))
        if self.include_frame:
            found += counted("torso rotation", range(9)) + point("center of mass")
        return found

    def contacts(self, physics: Physics) -> Float[Tensor, "world 84"]:
        """Torque and force of the contacts on each body, clipped to [-1, 1]."""
        return super().contacts(physics).clamp(-1.0, 1.0)

    def measure(self, physics: Physics) -> Float[Tensor, "world 2"]:
        """Where the torso is [m], or the center of mass' velocity [m/s], in the plane."""
        return (physics.bind("qpos") if self.tracking == "torso" else physics.bind("sensordata"))[:, :2].clone()

    def velocity(self, physics: Physics, before: Float[Tensor, "world 2"]) -> Float[Tensor, "world 2"]:
        """Velocity of this step in the plane [m/s]."""
        after = self.measure(physics)
        return (after - before) / (physics.timestep * self.frame_skip) if self.tracking == "torso" else after

    def progress_in_plane(
        self, velocity: Float[Tensor, "world 2"], task: Float[Tensor, "world ..."]
    ) -> Float[Tensor, " world"]:
        """What a velocity in the plane [m/s] is worth: what it makes along x, unless the task says otherwise."""
        return self.progress(velocity[:, 0], task)

    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, "world 2"],
        action: Float[Tensor, "world 8"],
        task: Float[Tensor, "world ..."],
    ) -> Float[Tensor, " world"]:
        progress = self.progress_in_plane(self.velocity(physics, before), task)
        return progress + self.bonus_minus_costs(physics, self.charged(action, task))

    def bonus_minus_costs(self, physics: Physics, action: Float[Tensor, "world 8"]) -> Float[Tensor, " world"]:
        """What every task adds to its progress."""
        reward = self.bonus(physics) - self.control_cost * action.square().sum(1)
        if self.contact_cost > 0:
            reward = reward - self.contact_cost * self.contacts(physics).square().sum(1)
        return reward


@functools.cache
def compile_model(*, rllab: bool, com_velocity_sensor: bool, contact_sensor: bool) -> mujoco.MjModel:
    """Gymnasium's ant, with rllab's timestep and contacts, and with the sensors that the definition needs."""
    spec = mujoco.MjSpec.from_file(str(XML))
    if rllab:
        spec.option.timestep = 0.02
        for geom in spec.geoms:
            geom.solimp[:3] = 0.8, 0.8, 0.01  # constraint impedance: at 0, at full width, width [m]
    if com_velocity_sensor:
        spec.add_sensor(type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso")
    if contact_sensor:
        add_contact_sensor(spec)
    return spec.compile()


@functools.cache
def bent_legs(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "15"]:
    """The file's ``init_qpos``, which only rllab reads; kept, since copying it makes a GPU wait."""
    model = compile_model(rllab=True, com_velocity_sensor=False, contact_sensor=False)
    return torch.tensor(model.numeric("init_qpos").data, device=device, dtype=dtype)


RLLAB: dict[str, Any] = {
    "horizon": 200,
    "frame_skip": 1,
    "body": "rllab",
    "tracking": "center_of_mass",
    "include_position": True,
    "include_contacts": True,
    "include_frame": True,
    "alive_bonus": 0.05,
    "bonus_at_the_end": True,
    "control_cost": 0.005,
    "contact_cost": 5e-4,
}
"""The 125 numbers, clock and costs of cbfinn/maml_rl; actions there are torques in [-150, 150] N m, normalized."""

PROMP: dict[str, Any] = {
    "horizon": 200,
    "include_contacts": True,
    "bonus_at_the_end": True,
    "contact_cost": 5e-4,
    "healthy": (0.0, 1.0),
}
"""The 111 numbers and costs of jonasrothfuss/ProMP's directions, on gym 0.10.5."""

PEARL: dict[str, Any] = {"horizon": 200, "bonus_at_the_end": True}
"""The 27 numbers of katerakelly/oyster's directions; its contact cost of 5e-4 weighed forces that read zero."""

VARIBAD: dict[str, Any] = PEARL | {"contact_cost": 5e-4}
"""The same of lmzintgraf/varibad, whose README prefers MuJoCo 1.50: the contact cost counts."""
