"""Picking an object up and carrying it to a goal: what several tasks reward in common, above all in version 1."""

import torch

from metarl.envs.metaworld.rewards import Flags, Scalars, distance, lifting, norm, peaked
from metarl.envs.metaworld.sawyer import Terms
from metarl.envs.metaworld.scene import Points, Scene


def in_hand(scene: Scene, obj: Points, radius: float, lift: float) -> Flags:
    """Whether the object is at the fingers and more than ``lift`` [m] above where it began."""
    at_fingers = (distance(obj, scene.tcp) < radius) & (scene.opened > 0)
    return at_fingers & (obj[:, 2] - lift > scene.obj_init[:, 2])


def approach(
    scene: Scene,
    obj: Points,
    *,
    beside: float = 0.05,
    close: float = 0.05,
    climb: float = 2.0,
    start_height: float | None = None,
) -> Scalars:
    """Version 1's reward for the hand's way to the object: above it first, then down, then close.

    Args:
        beside: horizontal distance within which the hand should go down [m].
        close: distance within which the gripper should close [m].
        climb: weight of the height lost or won while it is farther.
        start_height: the height that this counts from; by default the tool center point's at first.
    """
    to_obj, aside = distance(obj, scene.tcp), norm((obj - scene.tcp)[:, :2])
    start = scene.init_tcp[:, 2] if start_height is None else start_height
    reward = torch.where(aside < beside, -to_obj, -aside - climb * (scene.tcp[:, 2] - start).abs())
    closing = scene.gripper_effort.clamp(min=0.0) / 50
    return torch.where(to_obj < close, closing - to_obj, reward)


def pick_and_place_v1(
    scene: Scene,
    obj: Points,
    lift: float,
    *,
    climb: float = 2.0,
    height: Scalars | None = None,
    base: Scalars | float = 0.0,
    remaining: Scalars | None = None,
) -> Terms:
    """Version 1 of the tasks that reach for an object, lift it by ``lift`` [m] and carry it to the target.

    Args:
        climb: as in :func:`approach`.
        height: where the object lies [m]; by default at its ``obj_init``.
        base: height that lifting is counted from [m].
        remaining: what carrying should bring to 0 [m]; by default the distance of object and target.
    """
    height = scene.obj_init[:, 2] if height is None else height
    top, z = height + lift, obj[:, 2]
    to_target = distance(obj, scene.target)
    remaining = to_target if remaining is None else remaining
    farthest = distance(torch.cat([scene.obj_init[:, :2], top[:, None]], dim=-1), scene.target) + top
    lifted, held = z >= top - 0.01, distance(obj, scene.tcp) < 0.1
    reward = approach(scene, obj, climb=climb)
    reward = reward + lifting(z - base, height - base, top - base, lifted=lifted, held=held)
    reward = reward + torch.where(lifted & held, peaked(farthest - remaining, remaining), 0.0)
    return Terms(reward, obj_to_target=to_target)
