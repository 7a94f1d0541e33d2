"""The physics a task is written against: named, live tensors over worlds.

Two engines share this vocabulary. On CPU threads it is MuJoCo's own ``mujoco.batch`` (:mod:`metarl.envs.physics.cpu`),
on a GPU it is MuJoCo Warp (:mod:`metarl.envs.physics.gpu`); a task touches nothing but this protocol.

Every tensor has a leading ``world`` axis; world = task * num_envs + env, so the worlds of a task are contiguous.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.api import find_engine

STATE_FIELDS = frozenset(
    {"time", "qpos", "qvel", "act", "qacc_warmstart", "ctrl", "qfrc_applied", "xfrc_applied"}
    | {"eq_active", "mocap_pos", "mocap_quat", "userdata"}
)
"""What the next step depends on (MuJoCo's mjSTATE_INTEGRATION)."""
POSITION_FIELDS = frozenset(
    {"xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "subtree_com"}
)
"""What follows from positions alone; any other derived field also needs velocities."""


@runtime_checkable
class Physics(Protocol):
    """``num_worlds`` simulations of one model.

    A bound field is *current*: after :meth:`step`, :meth:`forward` and :meth:`reset` it describes the state that
    ``qpos`` and ``qvel`` show, not the state one substep before (MuJoCo's own convention for derived fields).
    """

    num_worlds: int
    device: torch.device
    """Where its tensors live."""
    timestep: float
    """Seconds of one substep."""

    @property
    def num_overflowed(self) -> int:
        """Episodes in which the engine's buffers were too small, so that contacts were dropped."""

    def bind(self, field: str) -> Tensor:
        """A live view ``[world, ...]`` of a data field (``qpos``, ``qvel``, ``ctrl``, ``xpos``, ``sensordata`` ...).

        State fields are written in place; derived ones are read only.
        """

    def expand(self, field: str) -> Tensor:
        """A live per-world copy ``[world, ...]`` of a model field (``body_mass``, ``opt.gravity`` ...)."""

    def set_const(self) -> None:
        """Recomputes the constants derived from the model; required after mass or inertia were written."""

    def step(self, substeps: int, awake: Tensor | None = None) -> Tensor:
        """Advances every world by ``substeps`` of ``timestep`` seconds.

        Args:
            awake: the worlds [world] that matter; the others may stand still.

        Returns:
            The worlds [world] whose simulation failed on the way; their state is meaningless until a reset.
        """

    def reset(self, mask: Tensor) -> None:
        """Puts the worlds of ``mask`` [world] to the model's initial state; the others keep their bits.

        Writes to the state may follow; :meth:`forward` then brings derived fields up to date.
        """

    def forward(self, mask: Tensor) -> None:
        """Recomputes the bound derived fields of the worlds of ``mask`` [world] from their state."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything the next step depends on, as tensors; the inverse is :meth:`load_state_dict`."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores :meth:`state_dict` exactly."""


def make_physics(
    model: mujoco.MjModel,
    num_worlds: int,
    *,
    engine: str = "auto",
    device: str | torch.device = "cpu",
    num_threads: int = 0,
    max_contacts: int | None = None,
    max_constraints: int | None = None,
) -> Physics:
    """Builds the engine that :func:`metarl.envs.api.find_engine` names.

    Args:
        device: where Warp's worlds live; the C engine's live on the CPU.
        num_threads: of the C engine; 0: every core.
        max_contacts: contacts that Warp holds for a world; None: measured.
        max_constraints: constraints likewise.
    """
    if find_engine(engine, device) == "cpu":
        from metarl.envs.physics.cpu import CpuPhysics

        return CpuPhysics(model, num_worlds, num_threads=num_threads)
    from metarl.envs.physics.gpu import WarpPhysics

    buffers = {"max_contacts": max_contacts, "max_constraints": max_constraints}
    collisions = engine.partition("-")[2] or "library"
    return WarpPhysics(model, num_worlds, device=device, collisions=collisions, **buffers)


def constant(like: Tensor, values: Sequence[float] | NDArray[np.float64]) -> Tensor:
    """``values`` in the precision and on the device of ``like``; made once, for copying them there makes a GPU wait."""
    return _constant(tuple(float(x) for x in values), like.dtype, like.device)


@cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def write(field: Tensor, mask: Tensor, values: Tensor) -> None:
    """Writes ``values`` [world ...] into the worlds of ``mask`` [world], without asking the host which they are."""
    field.copy_(torch.where(mask.view(-1, *[1] * (field.ndim - 1)), values.to(field), field))


def multiply(physics: Physics, model: mujoco.MjModel, factors: Mapping[str, float]) -> None:
    """Multiplies fields of the model in every world, those that it has, and what follows from them."""
    present = {field: factor for field, factor in factors.items() if getattr(model, field).size}
    for field, factor in present.items():
        physics.expand(field).mul_(factor)
    if present:
        physics.set_const()
