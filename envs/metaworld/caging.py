"""Rewards for having the fingers around an object, which most Meta-World tasks share."""

import torch

from metarl.envs.metaworld.rewards import Scalars, distance, hamacher_product, long_tail, norm
from metarl.envs.metaworld.scene import Points, Scene


def caging(
    scene: Scene,
    obj: Points,
    *,
    obj_radius: float,
    pad_success_thresh: float,
    xz_thresh: float,
    obj_init: Points | None = None,
    object_reach_radius: float = 0.0,
    desired_gripper_effort: float = 1.0,
    density: str = "",
) -> Scalars:
    """Fingers around the object and closing (``_gripper_caging_reward`` of Meta-World's base class), 0 to 1.

    Args:
        obj_radius: radius of the object [m]; a pad closer than this is no longer around it.
        pad_success_thresh: distance along y within which a pad is around the object [m].
        xz_thresh: distance of tool center point and object in the xz plane that counts as there [m].
        obj_init: where the object was at first; by default the episode's ``obj_init``.
        object_reach_radius: with ``density="medium"``, distance that counts as reached [m].
        desired_gripper_effort: the effort that counts as closed.
        density: ``high`` averages with caging alone, ``medium`` with reaching.
    """
    obj_init = scene.obj_init if obj_init is None else obj_init
    pads = torch.stack([scene.left_pad[:, 1], scene.right_pad[:, 1]], dim=-1)
    margin = ((pads - obj_init[:, 1:2]).abs() - pad_success_thresh).abs()
    left, right = long_tail((pads - obj[:, 1:2]).abs(), pad_success_thresh, margin, lower=obj_radius).unbind(-1)
    caged = hamacher_product(hamacher_product(left, right), in_plane(scene, obj, xz_thresh, obj_init))
    closed = scene.gripper_effort.clamp(0.0, desired_gripper_effort) / desired_gripper_effort
    gripped = hamacher_product(caged, torch.where(caged > 0.97, closed, 0.0))
    if density == "high":
        return (gripped + caged) / 2
    if density == "medium":
        margin = (distance(obj_init, scene.init_tcp) - object_reach_radius).abs()
        return (gripped + long_tail(distance(obj, scene.tcp), object_reach_radius, margin)) / 2
    return gripped


def caging_handle(scene: Scene, obj: Points, *, length: float, density: str) -> Scalars:
    """The form of hammer and wrenches: along x a handle of that length [m] is held wherever the hand is, 0 to 1."""
    x = torch.where((obj - scene.hand)[:, 0].abs() < length / 2, scene.hand[:, 0], obj[:, 0])
    return caging(
        scene,
        torch.cat([x[:, None], obj[:, 1:]], dim=-1),
        obj_radius=0.015,
        pad_success_thresh=0.02,
        xz_thresh=0.01,
        object_reach_radius=0.01,
        density=density,
    )


def caging_by_sides(scene: Scene, obj: Points, *, obj_radius: float, xz_thresh: float, grip_margin: float) -> Scalars:
    """The form of sweep, sweep-into, soccer and push-back, which know left from right and not the effort, 0 to 1.

    Args:
        grip_margin: a pad at most this much farther than ``obj_radius`` grips [m].
    """
    caged = hamacher_product(between_pads(scene, obj, obj_radius), in_plane(scene, obj, xz_thresh))
    gripped = between_pads(scene, obj, obj_radius, obj_radius + grip_margin)
    return (caged + torch.where(caged > 0.95, gripped, 0.0)) / 2


def between_pads(scene: Scene, obj: Points, obj_radius: float, upper: float = 0.05) -> Scalars:
    """Each pad on its side of the object, between ``obj_radius`` and ``upper`` [m] from it along y."""
    left, right = scene.left_pad[:, 1], scene.right_pad[:, 1]
    y = obj[:, 1]
    left_margin, right_margin = (((y - pad).abs() - 0.05).abs() for pad in (left, right))
    return hamacher_product(
        long_tail(left - y, upper, left_margin, lower=obj_radius),
        long_tail(y - right, upper, right_margin, lower=obj_radius),
    )


def in_plane(scene: Scene, obj: Points, xz_thresh: float, obj_init: Points | None = None) -> Scalars:
    """Tool center point and object together in the xz plane, on the scale of how far apart they began."""
    obj_init = scene.obj_init if obj_init is None else obj_init
    margin = norm((obj_init - scene.init_tcp)[:, ::2]) - xz_thresh
    return long_tail(norm((scene.tcp - obj)[:, ::2]), xz_thresh, margin)
