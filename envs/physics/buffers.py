"""What a model asks of MuJoCo Warp: a solver that it has, and memory; how much, MuJoCo's C engine tells."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import mujoco
import numpy as np
import torch

from metarl.envs.physics.cpu import silence

PROBE_STEPS = 1000


def solvable(model: mujoco.MjModel) -> mujoco.MjModel:
    """The same model with Newton's solver in place of PGS, which Warp does not have (the humanoid's)."""
    if model.opt.solver != mujoco.mjtSolver.mjSOL_PGS:
        return model
    changed = copy.copy(model)
    changed.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return changed


@cache
def buffer_sizes(model: mujoco.MjModel) -> tuple[int, int]:
    """Contacts and constraints to hold for a world: twice what C MuJoCo meets in 1,000 substeps of random controls,

    and some more, for what random controls do not find.
    """
    silence()
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    low, high = model.actuator_ctrlrange.T
    most_contacts = most_constraints = 0
    for step in range(PROBE_STEPS):
        if step % 5 == 0:
            data.ctrl[:] = rng.uniform(low, high)
        mujoco.mj_step(model, data)
        most_contacts, most_constraints = max(most_contacts, data.ncon), max(most_constraints, data.nefc)
    return 8 + 2 * most_contacts, 16 * (2 + most_constraints // 8)


@contextmanager
def lack_of_memory(num_worlds: int) -> Iterator[None]:
    """Warp's lack of memory as torch's error."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("alloc", "out of memory", "Graph creation", "Graph launch")):
            raise
        raise torch.OutOfMemoryError(f"{num_worlds} worlds of physics do not fit: {error}") from error
