"""Which pairs MuJoCo Warp's convex collision looks at on ML10, and how far it goes, on Warp's CPU device.

``python tests/benchmarks/benchmark_collisions.py --worlds 512`` takes some minutes. Worlds are in
states of the C engine, under actions as random as a new policy's, or those of Meta-World's scripted policy. Counts are
of a state; iterations are the fewest after which the result has its final bits.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp

sys.path += [str(Path(__file__).parents[1] / name) for name in ("envs", "helpers")]
wp.config.optimization_level = 0  # it counts: compiled in half the time

from mujoco_warp._src import collision_driver  # noqa: E402
from mujoco_warp._src.collision_core import contact_margin_gap, geom_collision_pair_from_types  # noqa: E402
from mujoco_warp._src.collision_gjk import epa_phase, gjk_phase  # noqa: E402
from mujoco_warp._src.types import MJ_MAX_EPAFACES, MJ_MAX_EPAHORIZON, GeomType  # noqa: E402
from test_metaworld_scripted import scripted  # noqa: E402

from metarl.envs.metaworld import ML10  # noqa: E402
from metarl.envs.metaworld.goals import draw_goals  # noqa: E402
from metarl.envs.metaworld.sawyer import SAWYER  # noqa: E402
from metarl.envs.metaworld.worlds import TaskWorlds  # noqa: E402
from metarl.envs.physics import candidates  # noqa: E402

MOST = 35  # iterations, MuJoCo's default
TOLERANCE = wp.constant(1e-6)  # likewise
TURNS = 5
COUNTS = ("candidates", "left", "touching", "contacts")


@wp.kernel(enable_backward=False)
def limited(
    types: wp.vec2i,
    geom_dataid: wp.array2d(dtype=int),
    geom_size: wp.array2d(dtype=wp.vec3),
    geom_margin: wp.array2d(dtype=float),
    geom_gap: wp.array2d(dtype=float),
    pair_margin: wp.array2d(dtype=float),
    pair_gap: wp.array2d(dtype=float),
    vertadr: wp.array(dtype=int),
    vertnum: wp.array(dtype=int),
    graphadr: wp.array(dtype=int),
    vert: wp.array(dtype=wp.vec3),
    graph: wp.array(dtype=int),
    polynum: wp.array(dtype=int),
    polyadr: wp.array(dtype=int),
    polynormal: wp.array(dtype=wp.vec3),
    polyvertadr: wp.array(dtype=int),
    polyvertnum: wp.array(dtype=int),
    polyvert: wp.array(dtype=int),
    polymapadr: wp.array(dtype=int),
    polymapnum: wp.array(dtype=int),
    polymap: wp.array(dtype=int),
    xpos: wp.array2d(dtype=wp.vec3),
    xmat: wp.array2d(dtype=wp.mat33),
    pair: wp.array(dtype=wp.vec2i),
    pairid: wp.array(dtype=wp.vec2i),
    world: wp.array(dtype=int),
    vertices: wp.array2d(dtype=wp.vec3),
    indices: wp.array2d(dtype=int),
    faces: wp.array2d(dtype=int),
    projections: wp.array2d(dtype=wp.vec3),
    norms: wp.array2d(dtype=float),
    horizon: wp.array2d(dtype=int),
    overflow: wp.array(dtype=int),
    gjk_iterations: int,
    epa_iterations: int,
    out: wp.array(dtype=wp.vec2),
):
    i = wp.tid()
    w = world[i]
    margin, gap = contact_margin_gap(geom_margin, geom_gap, pair_margin, pair_gap, pair[i], pairid[i][0], w)
    one, other = geom_collision_pair_from_types(
        geom_dataid, geom_size, vertadr, vertnum, graphadr, vert, graph, polynum, polyadr, polynormal, polyvertadr,
        polyvertnum, polyvert, polymapadr, polymapnum, polymap, xpos, xmat, types[0], types[1], pair[i], w,
    )  # fmt: skip
    one.margin = margin
    other.margin = margin
    other.pos = other.pos - one.pos
    one.pos = wp.vec3(0.0)
    inside, dist, _n, _x, _y, result, one, other = gjk_phase(
        TOLERANCE, gap, gjk_iterations, one, other, types[0], types[1], one.pos, other.pos
    )
    out[i] = wp.vec2(dist, 0.0)
    if inside:
        depth, _m, _u, _v, _f = epa_phase(
            TOLERANCE, epa_iterations, result, one, other, types[0], types[1], vertices[i], indices[i],
            faces[i], projections[i], norms[i], horizon[i], False, 0, overflow,
        )  # fmt: skip
        out[i] = wp.vec2(depth, 1.0)


def iterations(m: Any, d: Any, types: tuple[int, int], listed: candidates.Lists, row: int) -> np.ndarray:
    """Iterations of GJK and of EPA [candidate, 2] after which the result is final; EPA's 0: none."""
    number = min(int(listed.count.numpy()[row]), 100)  # of many the first
    if not number:
        return np.zeros((0, 2), dtype=int)
    names = "geom_dataid geom_size geom_margin geom_gap pair_margin pair_gap mesh_vertadr mesh_vertnum mesh_graphadr"
    names += " mesh_vert mesh_graph mesh_polynum mesh_polyadr mesh_polynormal mesh_polyvertadr mesh_polyvertnum"
    names += " mesh_polyvert mesh_polymapadr mesh_polymapnum mesh_polymap"
    rooms = (10 + 2 * MOST, wp.vec3), (10 + 2 * MOST, int), (6 + MJ_MAX_EPAFACES * MOST, int)
    rooms += (6 + MJ_MAX_EPAFACES * MOST, wp.vec3), (6 + MJ_MAX_EPAFACES * MOST, float), (MJ_MAX_EPAHORIZON, int)
    scratch = [wp.empty((number, room), dtype=kind) for room, kind in rooms]
    given = [wp.vec2i(*types), *(getattr(m, name) for name in names.split()), d.geom_xpos, d.geom_xmat]
    given += [listed.pair[row], listed.pairid[row], listed.world[row], *scratch, wp.zeros(d.nworld, dtype=int)]
    out = wp.zeros(number, dtype=wp.vec2)

    def result(gjk: int, epa: int) -> np.ndarray:
        wp.launch(limited, dim=number, inputs=[*given, gjk, epa], outputs=[out])
        return out.numpy().copy()

    final, found = result(MOST, MOST), np.ones((number, 2), dtype=int)
    found[:, 1] = final[:, 1]
    for k in range(1, MOST):
        found[(result(k, MOST) != final).any(1), 0] = k + 1
        found[(result(MOST, k) != final).any(1), 1] = k + 1
    return found


def states(name: str, options: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    """Warp's model and data, in states of the C engine."""
    worlds = options.worlds
    c, gpu = (
        TaskWorlds(SAWYER[name], worlds, show_goal=True, physics=engine, device="cpu", num_threads=1)
        for engine in ("cpu", "warp")
    )
    goals = torch.from_numpy(np.resize(draw_goals((name,), 1)[name], (worlds, c.vec.shape[1])))
    for each in (c, gpu):
        each.set_goals(goals)
        each.reset(torch.ones(worlds, dtype=torch.bool))
    generator = torch.Generator().manual_seed(0)
    for step in range(options.steps):
        action = torch.randn(worlds, 4, dtype=torch.float64, generator=generator).clamp(-1, 1)
        if step % options.every == options.every - 1:
            gpu.load_state_dict(c.state_dict())
            yield gpu.physics._m, gpu.physics._d
        if options.policy == "scripted":
            action = torch.from_numpy(scripted(name, c.obs.numpy()))
        c.act(action)
        c.physics.step(5)
        c.evaluate()


def count(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """By pair of types: candidates, those left after culling, those that touch, contacts, each in a state."""
    found: dict[tuple[int, int], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    library = collision_driver.convex_narrowphase

    def spy(m: Any, d: Any, ctx: Any, table: list[Any]) -> None:
        pairs = candidates.present(m, table)
        every, left = (candidates.listed(m, d, ctx, pairs, cull=cull) for cull in (False, True))
        for row, types in enumerate(pairs):
            found[types]["candidates"].append(int(every.count.numpy()[row]))
            found[types]["left"].append(int(left.count.numpy()[row]))
            found[types]["iterations"].append(iterations(m, d, types, left, row))
        library(m, d, ctx, table)

    collision_driver.convex_narrowphase = spy
    for m, d in states(name, options):
        mjw.fwd_kinematics(m, d)
        mjw.collision(m, d)
        number, kinds = int(d.nacon.numpy()[0]), m.geom_type.numpy()
        geoms, worlds = d.contact.geom.numpy()[:number], d.contact.worldid.numpy()[:number]
        for types, figures in found.items():
            mine = (kinds[geoms] == types).all(1)
            figures["contacts"].append(int(mine.sum()))
            figures["touching"].append(len(np.unique(np.column_stack([worlds, geoms])[mine], axis=0)))
    collision_driver.convex_narrowphase = library
    return [row(name, types, figures, options.worlds) for types, figures in found.items()]


def row(name: str, types: tuple[int, int], figures: dict[str, list[Any]], worlds: int) -> dict[str, Any]:
    gjk, epa = np.concatenate(figures["iterations"]).T
    epa = epa[epa > 0]
    kinds = "-".join(GeomType(t).name.lower() for t in types)
    means = {key: round(float(np.mean(figures[key])) / worlds, 3) for key in COUNTS}
    spread = {
        f"{method} {what}": int(value(x)) if len(x) else 0
        for method, x in (("GJK", gjk), ("EPA", epa))
        for what, value in (("median", np.median), ("most", np.max))
    }
    return {
        "task": name,
        "types": kinds,
        **means,
        "EPA runs": round(len(epa) / worlds / len(figures["left"]), 3),
        **spread,
    }


def time_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """CPU time of the whole collision, sorted and culled candidates against the library's, in the same states."""
    seconds: dict[str, float] = defaultdict(float)
    for m, d in states(name, options):
        for turn in range(1 + TURNS):
            for collisions in ("library", "sorted", "culled"):
                mjw.fwd_kinematics(m, d)
                begun = time.process_time()
                with candidates.narrowed(collisions):
                    mjw.collision(m, d)
                seconds[collisions] += (time.process_time() - begun) * (turn > 0)
    return {"task": name, **{f"{k} / library": round(v / seconds["library"], 3) for k, v in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=("random", "scripted"), default="random")
    parser.add_argument("--worlds", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--tasks", nargs="*", default=list(ML10().train_goals))
    parser.add_argument("--time", action="store_true", help="CPU time in place of counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.tasks:
        for figures in [time_of(name, options)] if options.time else count(name, options):
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
