"""The humanoid body, its observations and costs; the tasks are in the files beside this one.

Observation, rows in this order; 45 numbers, or 376 with ``include_dynamics``:

| numbers | meaning                                                                                | unit      |
|---------|----------------------------------------------------------------------------------------|-----------|
| 1       | height of the torso                                                                    | m         |
| 4       | orientation of the torso, quaternion w x y z                                           |           |
| 17      | joint angles: abdomen z y x; right hip x z y, knee; left hip x z y, knee; right        | rad       |
|         | shoulder 1 2, elbow; left shoulder 1 2, elbow                                          |           |
| 3       | velocity of the torso, axes of the world                                               | m/s       |
| 3       | angular velocity of the torso, its own axes                                            | rad/s     |
| 17      | joint velocities                                                                       | rad/s     |
| 140     | ``include_dynamics``: world (zeros) and 13 bodies, each inertia (6) about the center   | kg m^2    |
|         | of mass, mass times offset from it (3), mass                                           | kg m, kg  |
| 84      | ``include_dynamics``: the same bodies' angular velocity (3) and velocity (3)           | rad/s m/s |
| 23      | ``include_dynamics``: forces of the actuators on the 6 root coordinates (zeros) and    | N m       |
|         | the joints                                                                             |           |
| 84      | ``include_dynamics``: torque and force of the contacts on the same bodies              | N m and N |

Action: 17 torques in [-1, 1], which are controls of -0.4 to 0.4 times gears of 25 to 300 N m: abdomen y z x, then as
the joints above.

Reward of a subclass: 1.25 * progress of the center of mass [m/s] + alive bonus - 0.1 * |control|^2
- min(contact_cost * |contacts|^2, 10). Terminates where the height of the torso leaves ``healthy``.

Definitions: jonasrothfuss/ProMP ``meta_policy_search/envs/mujoco_envs/humanoid_rand_direc*.py``; katerakelly/oyster
(PEARL) ``rlkit/envs/humanoid_dir.py``; lmzintgraf/varibad ``environments/mujoco/humanoid_dir.py``; Gymnasium's
``humanoid_v5.py``.

What differs from them:
- Contact forces are those of the state they are observed with (:class:`metarl.envs.locomotion.legged.Legged`), and
so are inertias and
  velocities of the bodies and the center of mass, which Gym and Gymnasium show up to one substep late.
- Contacts are solved by PGS, as Gymnasium's file says. MuJoCo Warp does not have it and takes Newton's method: in C the
  positions of the two differ by less than 1e-4 after 60 random control steps.
"""

import functools
from dataclasses import dataclass
from typing import Any

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal
from metarl.envs.draws import uniform_like
from metarl.envs.locomotion.legged import Legged, add_contact_sensor
from metarl.envs.mujoco_task import ASSETS
from metarl.envs.physics import Physics, write
from metarl.envs.signals import counted, positions, velocities

XML = ASSETS / "humanoid.xml"
TORSO = 1
SPEED_REWARD = 1.25
"""Reward of a step at 1 m/s; the originals write 0.25 * displacement of 5 substeps / one substep's time."""
MAX_CONTACT_COST = 10.0


@dataclass(frozen=True)
class Humanoid(Legged):
    """Everything the humanoid tasks share. The defaults are Gymnasium's Humanoid-v5, positions and velocities alone."""

    horizon: int = 1000
    """Steps of an episode."""
    frame_skip: int = 5
    """Substeps of 0.003 s a control step."""
    alive_bonus: float = 5.0
    """Reward of each step of a healthy body."""
    healthy: tuple[float, float] | None = (1.0, 2.0)
    """Heights of the torso that do not terminate [m]; None: nothing does."""
    include_dynamics: bool = False
    """Observe inertias, velocities, actuator and contact forces of the bodies."""
    control_cost: float = 0.1
    """Weight of the squared controls, which lie in [-0.4, 0.4]."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            obs_dim=376 if self.include_dynamics else 45,
            action_dim=17,
            horizon=self.horizon,
            terminates=self.healthy is not None,
            has_success=False,
        )

    def model(self) -> mujoco.MjModel:
        return compile_model(contact_sensor=self.include_dynamics or self.contact_cost > 0)

    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        for field in (physics.bind("qpos"), physics.bind("qvel")):
            write(field, mask, field + (0.02 * uniform_like(field, generator) - 0.01))

    def observe(self, physics: Physics) -> Float[Tensor, "world obs"]:
        parts = [physics.bind("qpos")[:, 2:], physics.bind("qvel")]
        if self.include_dynamics or self.contact_cost > 0:
            contacts = self.contacts(physics)  # bound now, also where the cost alone reads them
            if self.include_dynamics:
                parts += [physics.bind(field).flatten(1) for field in ("cinert", "cvel", "qfrc_actuator")]
                parts.append(contacts)
        return torch.cat(parts, dim=1)

    def observed(self, model: mujoco.MjModel) -> list[Signal]:
        found = positions(model)[2:] + velocities(model)
        return found + counted("dynamics", range(self.spec.obs_dim - len(found)))

    def measure(self, physics: Physics) -> Float[Tensor, "world 2"]:
        """Where the center of mass is in the plane [m]."""
        return physics.bind("subtree_com")[:, TORSO, :2].clone()

    def velocity(self, physics: Physics, before: Float[Tensor, "world 2"]) -> Float[Tensor, "world 2"]:
        """Velocity of the center of mass over this step in the plane [m/s]."""
        return (self.measure(physics) - before) / (physics.timestep * self.frame_skip)

    def bonus_minus_costs(self, physics: Physics) -> Float[Tensor, " world"]:
        """What every task adds to its progress."""
        reward = self.bonus(physics) - self.control_cost * physics.bind("ctrl").square().sum(1)
        if self.contact_cost > 0:
            cost = self.contact_cost * self.contacts(physics).square().sum(1)
            reward = reward - cost.clamp(max=MAX_CONTACT_COST)
        return reward


@functools.cache
def compile_model(*, contact_sensor: bool) -> mujoco.MjModel:
    """Gymnasium's humanoid, with the sensor that the definition needs."""
    spec = mujoco.MjSpec.from_file(str(XML))
    if contact_sensor:
        add_contact_sensor(spec)
    return spec.compile()


PROMP: dict[str, Any] = {
    "horizon": 200,
    "include_dynamics": True,
    "bonus_at_the_end": True,
    "contact_cost": 5e-7,
}
"""The 376 numbers and costs of jonasrothfuss/ProMP, on gym 0.10.5 and MuJoCo 1.50."""

PEARL: dict[str, Any] = PROMP | {"zero_contacts": True}
"""The same on MuJoCo 2.0, which katerakelly/oyster asks for and lmzintgraf/varibad pins (mujoco-py 2.0.2.10)."""
