"""One world in C MuJoCo, for what happens before an episode: the arm settles and the task places its things.

Episodes of one (task, goal) all begin in the same state, so this runs once for each and is kept
(:mod:`metarl.envs.metaworld.resets`); it is no hot path. The order of calls is Meta-World's: positions read after
:meth:`Simulation.settle` lag one substep behind the state, as MuJoCo's step leaves them, and
:meth:`Simulation.set_state` brings them up to date.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

FRAME_SKIP = 5  # substeps in a control step
SUBSTEP = 0.0025  # s
SETTLE_STEPS = 50  # control steps in which the arm moves to where an episode begins
MOCAP_QUAT = (1.0, 0.0, 1.0, 0.0)
OPEN_GRIPPER = (-1.0, 1.0)
# anchor, relative pose and torque scale of the weld that drags the hand behind the mocap body
WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)

PADS = ("leftpad_geom", "rightpad_geom")

Vector = NDArray[np.float64]
ArrayLike = Any  # numpy's own annotation refuses tuples at run time


def assets() -> Path:
    """Where the installed ``metaworld`` package keeps its models; none of its code is imported."""
    package = find_spec("metaworld")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("Meta-World's models are missing: pip install metaworld")
    return Path(package.submodule_search_locations[0]) / "assets" / "sawyer_xyz"


@cache
def compile_model(name: str, touch: str = "") -> mujoco.MjModel:
    """A Meta-World model with its weld as the environments set it; shared, never written to.

    With ``touch``, a geom, it has a sensor of the force between it and each pad, called as the pad.
    """
    spec = mujoco.MjSpec.from_file(str(assets() / f"{name}.xml"))
    for pad in PADS if touch else ():
        geom, force = mujoco.mjtObj.mjOBJ_GEOM, 1 << mujoco.mjtConDataField.mjCONDATA_FORCE.value
        strongest, contacts = 2, 1  # the strongest of all contacts is enough
        what = {"objtype": geom, "objname": pad, "reftype": geom, "refname": touch}
        spec.add_sensor(name=pad, type=mujoco.mjtSensor.mjSENS_CONTACT, intprm=[force, strongest, contacts], **what)
    model = spec.compile()
    model.eq_data[model.eq_type == mujoco.mjtEq.mjEQ_WELD, : len(WELD)] = WELD
    return model


class Simulation:
    """One world, with the operations that Meta-World's resets are made of; every position returned is a copy."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = mujoco.MjModel.__copy__(model)
        self.data = mujoco.MjData(self.model)

    def settle(self, hand: ArrayLike, steps: int = SETTLE_STEPS) -> Vector:
        """Holds the gripper open at ``hand`` [m]; returns the tool center point it then has."""
        for _ in range(steps):
            self.data.mocap_pos[0] = hand
            self.data.mocap_quat[0] = MOCAP_QUAT
            self.data.ctrl[:] = OPEN_GRIPPER
            mujoco.mj_step(self.model, self.data, FRAME_SKIP)
        return self.tcp()

    def forward(self) -> None:
        mujoco.mj_forward(self.model, self.data)

    def set_state(self, qpos: Vector, qvel: Vector) -> None:
        """Writes positions and velocities and recomputes what follows from them."""
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self.forward()

    def set_object(self, position: ArrayLike, *, start: int = 9, qvel: slice = slice(9, 15)) -> None:
        """Writes ``position`` to ``qpos[start:]``, by default a free object's, and 0 to the velocities of ``qvel``."""
        values = np.atleast_1d(np.asarray(position, dtype=np.float64))
        new_qpos, new_qvel = self.data.qpos.copy(), self.data.qvel.copy()
        new_qpos[start : start + len(values)] = values
        new_qvel[qvel] = 0
        self.set_state(new_qpos, new_qvel)

    def move_body(self, name: str, position: ArrayLike) -> None:
        """Moves a body in its parent's frame, in the model."""
        self.model.body(name).pos = position

    def body(self, name: str) -> Vector:
        return self.data.body(name).xpos.copy()

    def site(self, name: str) -> Vector:
        return self.data.site(name).xpos.copy()

    def geom(self, name: str) -> Vector:
        return self.data.geom(name).xpos.copy()

    def tcp(self) -> Vector:
        return (self.site("rightEndEffector") + self.site("leftEndEffector")) / 2


def single(*values: float | int) -> Vector:
    """Numbers that Meta-World keeps in single precision, so that its constants are met to the last bit."""
    return np.array(values, dtype=np.float32).astype(np.float64)


def flat_distance(a: Sequence[float] | Vector, b: Sequence[float] | Vector) -> float:
    """Distance of two points on the table [m]."""
    return float(np.linalg.norm(np.asarray(a)[:2] - np.asarray(b)[:2]))
