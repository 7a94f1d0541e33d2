"""What the numbers of MuJoCo tasks are called and measured in, from the names and the actuators of a model."""

from collections.abc import Iterable

import mujoco

from metarl.envs.api import Signal

POSE = (("x", "m"), ("y", "m"), ("z", "m"), ("quaternion w", ""), ("quaternion x", ""), ("quaternion y", ""))
FREE: dict[str, tuple[tuple[str, str], ...]] = {"position": (*POSE, ("quaternion z", ""))}
"""Of a free joint; its velocity is along the axes of the world, its angular velocity about its own."""
FREE["velocity"] = (*((f"velocity {axis}", "m/s") for axis in "xyz"), *((f"rate {axis}", "rad/s") for axis in "xyz"))
UNITS = {mujoco.mjtJoint.mjJNT_SLIDE: "m", mujoco.mjtJoint.mjJNT_HINGE: "rad"}


def positions(model: mujoco.MjModel) -> list[Signal]:
    """``qpos``, joint by joint."""
    found: list[Signal] = []
    for joint in (model.joint(index) for index in range(model.njnt)):
        kind, name = mujoco.mjtJoint(int(joint.type[0])), joint.name or f"joint {joint.id}"
        if kind in UNITS:
            found.append(Signal(name, UNITS[kind]))
        else:
            parts = FREE["position"] if kind == mujoco.mjtJoint.mjJNT_FREE else FREE["position"][3:]
            found += [Signal(f"{name} {part}", unit) for part, unit in parts]
    return found


def velocities(model: mujoco.MjModel) -> list[Signal]:
    """``qvel``, joint by joint."""
    found: list[Signal] = []
    for joint in (model.joint(index) for index in range(model.njnt)):
        kind, name = mujoco.mjtJoint(int(joint.type[0])), joint.name or f"joint {joint.id}"
        if kind in UNITS:
            found.append(Signal(f"{name} velocity", f"{UNITS[kind]}/s"))
        else:
            parts = FREE["velocity"] if kind == mujoco.mjtJoint.mjJNT_FREE else FREE["velocity"][3:]
            found += [Signal(f"{name} {part}", unit) for part, unit in parts]
    return found


def actuators(model: mujoco.MjModel) -> list[Signal]:
    """What actions of -1 and 1 stand for: force or torque of a motor, the control signal of anything else."""
    found = []
    for index in range(model.nu):
        low, high = (float(bound) for bound in model.actuator_ctrlrange[index])
        name, unit = model.actuator(index).name, ""
        if model.actuator_trntype[index] == mujoco.mjtTrn.mjTRN_JOINT:
            joint = int(model.actuator_trnid[index, 0])
            name = name or model.joint(joint).name
            hinge = model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE
            fixed = model.actuator_gaintype[index] == mujoco.mjtGain.mjGAIN_FIXED
            if fixed and model.actuator_biastype[index] == mujoco.mjtBias.mjBIAS_NONE:
                gain = float(model.actuator_gainprm[index, 0] * model.actuator_gear[index, 0])
                low, high, unit = low * gain, high * gain, "N m" if hinge else "N"
        found.append(Signal(name or f"actuator {index}", unit, low, high))
    return found


def point(name: str, unit: str = "m") -> list[Signal]:
    """x, y and z of something."""
    return [Signal(f"{name} {axis}", unit) for axis in "xyz"]


def counted(name: str, numbers: Iterable[int], unit: str = "") -> list[Signal]:
    """Numbers that have an index in place of a name."""
    return [Signal(f"{name} {number}", unit) for number in numbers]
