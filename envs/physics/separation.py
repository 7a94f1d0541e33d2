"""Whether two geoms are certainly apart: a lower bound of their distance, in Warp, for pairs of any convex types.

A geom is covered by a cylinder, if it is one, or else by its bounding box (itself, if it is a box). Projections from
one cover to the other and back lead towards their closest points (the method of alternating projections, von Neumann),
and any direction found on the way bounds the distance from below: the gap between the intervals that the covers take
along it. So an answer of "apart" is true wherever the projections have come to.
"""

import warp as wp
from mujoco_warp._src.types import GeomType

CYLINDER = wp.constant(int(GeomType.CYLINDER))
BOX = wp.constant(int(GeomType.BOX))
PROJECTIONS = wp.constant(8)  # there and back; most pairs that are apart need one
SLACK = wp.constant(1e-5)  # m for each m of size, and one: far more than float32 rounds away


@wp.struct
class Cover:
    """A box of half sizes ``size``, or a cylinder of radius ``size[0]`` and half length ``size[2]`` along z."""

    pos: wp.vec3
    rot: wp.mat33
    size: wp.vec3
    is_round: bool


@wp.func
def cover(
    geom_type: wp.array(dtype=int),
    geom_size: wp.array2d(dtype=wp.vec3),
    geom_aabb: wp.array3d(dtype=wp.vec3),
    xpos: wp.array2d(dtype=wp.vec3),
    xmat: wp.array2d(dtype=wp.mat33),
    geom: int,
    world: int,
) -> Cover:
    found = Cover()
    found.rot = xmat[world, geom]
    found.pos = xpos[world, geom]
    size = geom_size[world % geom_size.shape[0], geom]
    found.is_round = geom_type[geom] == CYLINDER
    if found.is_round:
        found.size = wp.vec3(size[0], size[0], size[1])
    elif geom_type[geom] == BOX:
        found.size = size
    else:
        row = world % geom_aabb.shape[0]
        found.size = geom_aabb[row, geom, 1]
        found.pos += found.rot @ geom_aabb[row, geom, 0]
    return found


@wp.func
def nearest(body: Cover, point: wp.vec3) -> wp.vec3:
    """The point of the body nearest to ``point``."""
    x = wp.transpose(body.rot) @ (point - body.pos)
    if body.is_round:
        off = wp.sqrt(x[0] * x[0] + x[1] * x[1])
        scale = wp.where(off > body.size[0], body.size[0] / off, 1.0)
        x = wp.vec3(x[0] * scale, x[1] * scale, wp.clamp(x[2], -body.size[2], body.size[2]))
    else:
        x = wp.vec3(
            wp.clamp(x[0], -body.size[0], body.size[0]),
            wp.clamp(x[1], -body.size[1], body.size[1]),
            wp.clamp(x[2], -body.size[2], body.size[2]),
        )
    return body.rot @ x + body.pos


@wp.func
def reach(body: Cover, direction: wp.vec3) -> float:
    """How far the body extends from its middle along a unit vector."""
    n = wp.transpose(body.rot) @ direction
    if body.is_round:
        return body.size[0] * wp.sqrt(n[0] * n[0] + n[1] * n[1]) + body.size[2] * wp.abs(n[2])
    return wp.dot(body.size, wp.abs(n))


@wp.func
def are_apart(one: Cover, other: Cover, margin: float) -> bool:
    """Whether they are certainly more than ``margin`` apart; they may be so without."""
    between = other.pos - one.pos
    limit = margin + SLACK * (1.0 + wp.length(one.size) + wp.length(other.size))
    point = one.pos
    for _ in range(PROJECTIONS):
        far = nearest(other, point)
        point = nearest(one, far)
        along = far - point
        length = wp.length(along)
        if length <= limit:
            return False
        along = along / length
        if wp.dot(between, along) - reach(one, along) - reach(other, along) > limit:
            return True
    return False
