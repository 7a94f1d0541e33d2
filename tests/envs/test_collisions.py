"""Candidates of convex collision, sorted and culled: contacts and trajectories are the library's, to the bit."""

import warnings
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from test_metaworld_warp import actions_of, make

from metarl.envs.metaworld import ML10
from metarl.envs.physics import candidates, make_physics
from metarl.envs.physics.candidates import listed, narrowed, present
from metarl.envs.physics.gpu import mjw
from metarl.envs.registry import find_preset

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = {
    "sphere": 'type="sphere" size=".05"',
    "capsule": 'type="capsule" size=".03 .06"',
    "cylinder": 'type="cylinder" size=".04 .07"',
    "box": 'type="box" size=".03 .05 .08"',
    "mesh": 'type="mesh" mesh="hull"',
}
PAIRS = [("cylinder", "box"), ("box", "mesh"), ("cylinder", "mesh"), ("capsule", "mesh"), ("cylinder", "cylinder")]
CONTACT = ("dist", "pos", "frame", "includemargin", "geom", "worldid", "geomcollisionid", "friction", "solref", "dim")
POSES = 1000


def two_bodies(one: str, other: str, *, margin: float, gap: float) -> Any:
    """Physics of ``POSES`` worlds in which two bodies meet in random poses, a third of them within 2 mm of touching."""
    geoms = "".join(
        f'<body><freejoint/><geom {SHAPES[shape]} margin="{margin}" gap="{gap}"/></body>' for shape in (one, other)
    )
    points = np.random.default_rng(0).normal(size=(30, 3)) * (0.05, 0.03, 0.04)
    mesh = f'<asset><mesh name="hull" vertex="{" ".join(f"{x:.4f}" for x in points.ravel())}"/></asset>'
    model = mujoco.MjModel.from_xml_string(f"<mujoco>{mesh}<worldbody>{geoms}</worldbody></mujoco>")
    qpos, rng, data = np.zeros((POSES, 14), np.float32), np.random.default_rng(1), mujoco.MjData(model)
    for i, pose in enumerate(qpos):
        pose[[3, 4, 5, 6, 10, 11, 12, 13]] = rng.normal(size=8)
        pose[7:10] = rng.normal(size=3) * 0.08
        data.qpos[:] = pose
        mujoco.mj_kinematics(model, data)
        if i % 3 == 0:
            line = np.zeros(6)
            apart = mujoco.mj_geomDistance(model, data, 0, 1, 1.0, line)
            if apart > 0:
                pose[7:10] += (line[:3] - line[3:]) / apart * (apart - margin - gap + rng.uniform(-2e-3, 2e-3))
    physics = make_physics(model, POSES, engine="warp", max_contacts=8, max_constraints=32)
    physics.bind("qpos").copy_(torch.from_numpy(qpos))
    mjw.fwd_kinematics(physics._m, physics._d)
    return physics


def contacts(physics: Any, collisions: str) -> list[np.ndarray]:
    """Every number of the contacts, in their order."""
    m, d = physics._m, physics._d
    with narrowed(collisions):
        mjw.collision(m, d)
    found = int(d.nacon.numpy()[0])
    return [getattr(d.contact, name).numpy()[:found].copy() for name in CONTACT]


CASES = [(*pair, *width) for pair in PAIRS for width in ((0.01, 0.005), (0.0, 0.0))]
QUICK_FIRST = [pytest.param(*case, marks=pytest.mark.slow if i else ()) for i, case in enumerate(CASES)]


@pytest.mark.parametrize(("one", "other", "margin", "gap"), QUICK_FIRST)
def test_contacts_of_random_poses_are_the_librarys(one: str, other: str, margin: float, gap: float) -> None:
    physics = two_bodies(one, other, margin=margin, gap=gap)
    library = contacts(physics, "library")
    assert 100 < len(np.unique(library[5])) < POSES - 100, "worlds that touch, and that do not"
    for collisions in ("sorted", "culled"):
        assert all(np.array_equal(*both) for both in zip(library, contacts(physics, collisions), strict=True))
    with candidates._replaced(
        candidates.collision_convex, "_ccd_grid_size", lambda *_: 100
    ):  # as on a GPU: few threads
        few = contacts(physics, "culled")
    assert all(np.array_equal(x[order(library)], y[order(few)]) for x, y in zip(library, few, strict=True))
    left = of_last_collision(physics)
    assert left["sorted"] == int(physics._d.ncollision.numpy()[0])
    touching, pairs = len(np.unique(library[5])), left["sorted"]
    discarded = (pairs - left["culled"]) / (pairs - touching)
    print(f"{one}-{other}: {pairs} candidates, {touching} touch, {discarded:.0%} of the others discarded")
    assert discarded > (0.02 if other == "mesh" else 0.2), "a third is within 2 mm, and the box around a mesh is wide"


def order(found: list[np.ndarray]) -> np.ndarray:
    """Contacts by world and number within their pair."""
    return np.lexsort((found[6], found[5]))


def of_last_collision(physics: Any) -> dict[str, int]:
    """How many candidates the kernels are given, sorted and culled."""
    found = {}

    def count(m: Any, d: Any, ctx: Any, table: Any) -> None:
        for name in ("sorted", "culled"):
            found[name] = int(listed(m, d, ctx, present(m, table), cull=name == "culled").count.numpy().sum())

    with candidates._replaced(candidates.collision_driver, "convex_narrowphase", count):
        mjw.collision(physics._m, physics._d)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["door-open-v3", "reach-v3", "peg-insert-side-v3", "basketball-v3"])
def test_trajectories_of_metaworld_are_the_librarys(name: str) -> None:
    """Full state after every step of the scripted policy and of random actions, in turns."""
    assert name in ML10().train_goals
    every = {engine: make(name, engine) for engine in ("warp", "warp-sorted", "warp-culled")}
    for step in range(40):
        action = actions_of(name, every["warp"], step)
        for worlds in every.values():
            worlds.act(action)
            worlds.physics.step(5)
            worlds.evaluate()
        library, *others = (worlds.state_dict() for worlds in every.values())
        assert all(torch.equal(library[key], other[key]) for other in others for key in library), step


@pytest.mark.parametrize("task", ["half_cheetah_dir", pytest.param("ant_dir", marks=pytest.mark.slow)])
def test_locomotion_has_no_convex_collision_to_narrow(task: str) -> None:
    """Its runs launch what they did."""
    chosen: Any = find_preset(task)
    model = chosen.model_of(chosen.sample(1, torch.Generator().manual_seed(0))[0])
    physics: Any = make_physics(model, 2, engine="warp-culled")
    table = [pair for pair, how in candidates.collision_driver.MJ_COLLISION_TABLE.items() if how.name == "CONVEX"]
    assert present(physics._m, table) == ()


def test_another_version_takes_its_own_path_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "version", lambda name: "3.18.0")
    candidates.is_known.cache_clear()
    library = candidates.collision_driver.convex_narrowphase
    with pytest.warns(UserWarning, match="3.18.0 is not 3.17"), narrowed("culled"):
        assert candidates.collision_driver.convex_narrowphase is library
    with warnings.catch_warnings(), narrowed("culled"):
        warnings.simplefilter("error")
        assert candidates.collision_driver.convex_narrowphase is library
    candidates.is_known.cache_clear()


def test_the_librarys_functions_are_put_back() -> None:
    library, build = candidates.collision_driver.convex_narrowphase, candidates.collision_convex.ccd_kernel_builder
    with pytest.raises(ZeroDivisionError), narrowed("culled"):
        _ = 1 // (candidates.collision_driver.convex_narrowphase is library)
    assert candidates.collision_driver.convex_narrowphase is library
    assert candidates.collision_convex.ccd_kernel_builder is build
