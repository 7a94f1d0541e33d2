"""Pushing an object over the table to a goal: what several tasks reward in common in version 1."""

import torch

from envs.metaworld.rewards import Worlds, distance, norm, peaked
from envs.metaworld.sawyer import Terms
from envs.metaworld.scene import Points, Scene


def flat(a: Points, b: Points) -> Worlds:
    """Distance of two points along the table [m]."""
    return norm((a - b)[:, :2])


def advance(scene: Scene, obj: Points, remaining: Worlds) -> Worlds:
    """For an object with ``remaining`` [m] to go, while the hand is at it."""
    progress = flat(scene.obj_init, scene.target) - remaining
    return torch.where(distance(scene.tcp, obj) < 0.05, peaked(progress, remaining), 0.0)


def push_v1(scene: Scene, obj: Points) -> Terms:
    """Version 1 of the tasks that bring the hand to the object and the object to the target."""
    remaining = flat(obj, scene.target)
    nothing = torch.zeros_like(remaining)
    reward = advance(scene, obj, remaining) - distance(scene.tcp, obj)
    return Terms(reward, nothing, remaining, nothing, nothing)
