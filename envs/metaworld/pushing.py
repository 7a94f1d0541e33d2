"""Moving an object while the hand is at it: what many tasks reward in common in version 1."""

import torch

from metarl.envs.metaworld.rewards import Scalars, distance, norm, peaked
from metarl.envs.metaworld.sawyer import Terms
from metarl.envs.metaworld.scene import Points, Scene


def flat(a: Points, b: Points) -> Scalars:
    """Distance of two points along the table [m]."""
    return norm((a - b)[:, :2])


def move(to_obj: Scalars, to_target: Scalars, farthest: Scalars | float, **peak: float) -> Scalars:
    """For an object with ``to_target`` [m] of ``farthest`` to go, while the hand is within 5 cm of it.

    Args:
        peak: as in :func:`metarl.envs.metaworld.rewards.peaked`.
    """
    return torch.where(to_obj < 0.05, peaked(farthest - to_target, to_target, **peak), 0.0)


def reach_and_move_v1(to_obj: Scalars, to_target: Scalars, farthest: Scalars | float, **peak: float) -> Terms:
    """Version 1 of the tasks that bring the hand to the object and the object to the target; as :func:`move`."""
    return Terms(move(to_obj, to_target, farthest, **peak) - to_obj, obj_to_target=to_target)


def push_v1(scene: Scene, obj: Points) -> Terms:
    """Version 1 of the tasks that slide an object over the table."""
    return reach_and_move_v1(distance(scene.tcp, obj), flat(obj, scene.target), flat(scene.obj_init, scene.target))
