"""What a model's actuators do with an action: refused where they could do nothing."""

import mujoco
import numpy as np

from metarl.envs.fields import BadField

ADVICE = 'write ctrlrange="low high", the controls that actions of -1 and 1 stand for'


def require_actuators(model: mujoco.MjModel, name: str) -> None:
    """Refuses a model whose actuators no action moves; MuJoCo's default range of an actuator is [0, 0].

    Args:
        name: of the task.

    Raises:
        BadField: the first such actuator, and what to write.
    """
    if model.nu == 0:
        raise BadField(f"the model of {name} has no actuators: nothing would come of an action")
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_ACTUATION:
        raise BadField(f'the model of {name} disables actuation: leave out <flag actuation="disable"/>')
    for actuator, (low, high) in enumerate(model.actuator_ctrlrange):
        which = f"actuator {_called(model, actuator)} of {name}"
        if not (np.isfinite((low, high)).all() and low < high):
            muscle = model.actuator_gaintype[actuator] == int(mujoco.mjtGain.mjGAIN_MUSCLE)
            usual = " (a muscle's is 0 1)" if muscle else ""
            raise BadField(f"{which} has the control range [{low:g}, {high:g}]: {ADVICE}{usual}")
        if not model.actuator_gear[actuator].any():
            raise BadField(f"{which} has gear 0, which no control moves: use another number")
        group = model.actuator_group[actuator]
        if 0 <= group < 31 and model.opt.disableactuator >> group & 1:
            raise BadField(f"{which} is in group {group}, which the model disables: leave actuatorgroupdisable out")


def _called(model: mujoco.MjModel, actuator: int) -> str:
    """Its name, or its number and what it moves."""
    if own := model.actuator(actuator).name:
        return repr(own)
    if model.actuator_trntype[actuator] <= int(mujoco.mjtTrn.mjTRN_JOINTINPARENT):  # or mjTRN_JOINT, 0
        return f"{actuator} (joint {model.joint(model.actuator_trnid[actuator, 0]).name!r})"
    return str(actuator)
