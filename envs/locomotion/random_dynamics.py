"""Tasks that differ in the dynamics of one body: a multiplier for each number of some of its model's fields.

Lee's rand_param_envs (github.com/dennisl88/rand_param_envs, ``rand_param_envs/base.py``), which ProMP, PEARL and
VariBAD share, scales masses, inertias, friction and damping: :data:`FIELDS`. Two things are not as there:

- Constants that follow from masses are computed again for each world. The original left those of the unscaled body
  in place, so that its contacts and joint limits had the wrong softness.
- The multipliers are drawn in float32 from the caller's generator, where the original used numpy's global one.

The original draws every number by itself. So the three inertias of a link may belong to no body that exists (one
above the sum of the others), friction has a multiplier for sliding, spinning and rolling alike, and some multipliers
have no effect: those of fields that are zero, and of the world's own body.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, NamedTuple

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.fields import require
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.physics import Physics


class Scaled(NamedTuple):
    """A model field, each of whose numbers is multiplied by base^u, u uniform in [-scale_limit, scale_limit]."""

    field: str
    base: float


FIELDS = (
    Scaled("body_mass", 1.5),
    Scaled("body_inertia", 1.5),
    Scaled("dof_damping", 1.3),
    Scaled("geom_friction", 1.5),
)
"""The task vector is these fields' multipliers, one field after the other, each in MuJoCo's order."""


@dataclass(frozen=True)
class RandomDynamics(MujocoTask):
    """To be inherited after the body's class. Task parameter: the multipliers of :attr:`scaled`."""

    scaled: ClassVar[Sequence[Scaled]] = FIELDS

    scale_limit: float = 3.0
    """Exponents are uniform in [-scale_limit, scale_limit]: 3 is up to 3.4 times more or less mass, 2.2 damping."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "scale_limit", at_least=0, at_most=20)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task multiplier"]:
        device = generator.device
        bases = torch.tensor([s.base for s, size in zip(self.scaled, self.sizes, strict=True) for _ in range(size)])
        u = 2 * torch.rand(num_tasks, len(bases), generator=generator, device=device) - 1
        return bases.to(device) ** (self.scale_limit * u)

    def in_words(self, task: Float[Tensor, " multiplier"]) -> str:
        return f"run with a body of its own, {len(task)} multipliers"

    def apply_task(self, physics: Physics, task: Float[Tensor, "world multiplier"]) -> None:
        for (field, _), multipliers in zip(self.scaled, task.split(self.sizes, dim=1), strict=True):
            scale_field(physics, self.model(), field, multipliers)
        physics.set_const()

    @property
    def sizes(self) -> list[int]:
        """How many numbers each scaled field has."""
        return [prod(getattr(self.model(), s.field).shape) for s in self.scaled]


def scale_field(
    physics: Physics, model: mujoco.MjModel, field: str, multipliers: Float[Tensor, "world multiplier"]
) -> None:
    """Sets a field of each world to the model's own numbers times multipliers."""
    values = physics.expand(field)
    own = torch.as_tensor(getattr(model, field)).to(values)
    values.copy_(own * multipliers.to(values).reshape(values.shape))
