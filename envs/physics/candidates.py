"""Which pairs of geoms the general convex collision of MuJoCo Warp looks at, in what order.

The library launches one kernel for each pair of geom types, over all that the broadphase left; a thread skips what is
of other types. Here each kernel is given a list of its own types alone, and, if wanted, without the pairs that are
certainly apart. Contacts stay what they are, to the bit: a list keeps the order of the broadphase where that has one
(Warp's CPU device), and GJK does not report a distance below the true one by more than rounding.

On a GPU the kernels are launched with as many threads as worlds need, a few for each; the library takes what fills the
card twice, to find no candidate at all in most launches of Meta-World's. Threads stride over what there is, so that
the number changes no contact.

Three functions of ``mujoco_warp`` are replaced while its collision is called (so while a graph is recorded); none is
copied. A version that is not known keeps its own path, and a warning says so once.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import warp as wp
from mujoco_warp._src import collision_convex, collision_driver
from mujoco_warp._src.collision_core import contact_margin_gap
from mujoco_warp._src.math import upper_trid_index
from mujoco_warp._src.types import GeomType

from metarl.envs.physics.separation import are_apart, cover

KNOWN = ("3.17",)
"""Versions of ``mujoco_warp`` whose collision this was compared with."""
THREADS = 2
"""Of a launch on a GPU for each world; ML10's worlds have 0 to 1.5 candidates of a pair of types."""

Pairs = tuple[tuple[int, int], ...]


class Lists(NamedTuple):
    """Candidates by pair of geom types, each list with room for all."""

    count: wp.array
    """[types]."""
    pair: wp.array
    """Geoms [types, room] of two integers, as of ``CollisionContext``."""
    pairid: wp.array
    world: wp.array


@contextmanager
def narrowed(collisions: str) -> Iterator[None]:
    """Within it, ``mujoco_warp`` collides as :class:`metarl.envs.physics.gpu.WarpPhysics` has it by ``collisions``."""
    if collisions == "library" or not is_known():
        yield
        return
    library = collision_driver.convex_narrowphase

    def narrowphase(m: Any, d: Any, ctx: Any, table: list[Any]) -> None:
        collide(library, m, d, ctx, table, cull=collisions == "culled")

    with _replaced(collision_driver, "convex_narrowphase", narrowphase):
        yield


@cache
def is_known() -> bool:
    """Whether this ``mujoco_warp`` is one that the replacements fit; says it once if not."""
    installed = version("mujoco-warp")
    fits = installed.startswith(tuple(f"{known}." for known in KNOWN))
    if not fits:
        warnings.warn(
            f"mujoco-warp {installed} is not {' or '.join(KNOWN)}: collisions take its own path", stacklevel=2
        )
    return fits


def collide(library: Callable[..., None], m: Any, d: Any, ctx: Any, table: list[Any], *, cull: bool) -> None:
    """``convex_narrowphase`` of ``mujoco_warp``, each kernel of which sees the list of its own types."""
    pairs = present(m, table)
    if not pairs:
        library(m, d, ctx, table)
        return
    lists = listed(m, d, ctx, pairs, cull=cull)
    seen, candidates = copy.copy(d), copy.copy(ctx)  # shallow: they share all arrays
    build, grid = collision_convex.ccd_kernel_builder, collision_convex._ccd_grid_size

    def builder(type1: int, type2: int, *options: Any) -> Any:
        i = pairs.index((type1, type2))
        seen.ncollision = lists.count[i : i + 1]
        candidates.collision_pair, candidates.collision_pairid = lists.pair[i], lists.pairid[i]
        candidates.collision_worldid = lists.world[i]
        return build(type1, type2, *options)

    def grid_size(kernel: Any, most: int, device: Any) -> int:
        found: int = grid(kernel, most, device)
        return found if device.is_cpu else min(found, THREADS * d.nworld)

    with (
        _replaced(collision_convex, "ccd_kernel_builder", builder),  # each launch is preceded by a call of both
        _replaced(collision_convex, "_ccd_grid_size", grid_size),
    ):
        library(m, seen, candidates, table)


def present(m: Any, table: list[Any]) -> Pairs:
    """Pairs of types of ``table`` that the model has, by number; height fields have a kernel of another kind."""
    pairs = [(int(one), int(other)) for one, other in table if GeomType.HFIELD not in (one, other)]
    return tuple(p for p in pairs if m.geom_pair_type_count[upper_trid_index(len(GeomType), *p)])


def listed(m: Any, d: Any, ctx: Any, pairs: Pairs, *, cull: bool) -> Lists:
    """Sorts the candidates of ``ctx`` into lists, in a kernel; nothing waits for the GPU.

    Args:
        cull: leave out pairs that are certainly apart.
    """
    shape = len(pairs), d.naconmax
    count = wp.zeros(len(pairs), dtype=int)
    lists = Lists(count, wp.empty(shape, dtype=wp.vec2i), wp.empty(shape, dtype=wp.vec2i), wp.empty(shape, dtype=int))
    model = m.geom_type, m.geom_size, m.geom_aabb, m.geom_margin, m.geom_gap, m.pair_margin, m.pair_gap
    given = ctx.collision_pair, ctx.collision_pairid, ctx.collision_worldid
    wp.launch(
        _sorter(pairs, cull),
        dim=d.naconmax,
        inputs=[*model, d.geom_xpos, d.geom_xmat, d.ncollision, *given],
        outputs=list(lists),
    )
    return lists


@cache
def _sorter(pairs: Pairs, cull: bool) -> wp.Kernel:
    @wp.kernel(module="unique", enable_backward=False)
    def sort_candidates(
        geom_type: wp.array(dtype=int),
        geom_size: wp.array2d(dtype=wp.vec3),
        geom_aabb: wp.array3d(dtype=wp.vec3),
        geom_margin: wp.array2d(dtype=float),
        geom_gap: wp.array2d(dtype=float),
        pair_margin: wp.array2d(dtype=float),
        pair_gap: wp.array2d(dtype=float),
        xpos: wp.array2d(dtype=wp.vec3),
        xmat: wp.array2d(dtype=wp.mat33),
        number: wp.array(dtype=int),
        pair: wp.array(dtype=wp.vec2i),
        pairid: wp.array(dtype=wp.vec2i),
        world: wp.array(dtype=int),
        count: wp.array(dtype=int),
        pair_out: wp.array2d(dtype=wp.vec2i),
        pairid_out: wp.array2d(dtype=wp.vec2i),
        world_out: wp.array2d(dtype=int),
    ) -> None:
        i = wp.tid()
        if i >= number[0]:
            return
        geoms = pair[i]
        ids = pairid[i]
        w = world[i]
        a = geoms[0]
        b = geoms[1]
        type1 = geom_type[a]
        type2 = geom_type[b]
        row = int(-1)  # noqa: RUF046, UP018 - Warp: a variable, no constant
        for k in range(wp.static(len(pairs))):
            if type1 == wp.static(pairs[k][0]) and type2 == wp.static(pairs[k][1]):
                row = k
        if row < 0:
            return
        if wp.static(cull):  # noqa: SIM102 - Warp decides it as it compiles
            if ids[1] < 0:  # sensors ask for distances, too
                margin, gap = contact_margin_gap(geom_margin, geom_gap, pair_margin, pair_gap, geoms, ids[0], w)
                one = cover(geom_type, geom_size, geom_aabb, xpos, xmat, a, w)
                other = cover(geom_type, geom_size, geom_aabb, xpos, xmat, b, w)
                if are_apart(one, other, margin + gap):
                    return
        place = wp.atomic_add(count, row, 1)
        pair_out[row, place] = geoms
        pairid_out[row, place] = ids
        world_out[row, place] = w

    return sort_candidates


@contextmanager
def _replaced(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)
