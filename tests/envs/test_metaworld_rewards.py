"""Meta-World's reward primitives, world by world, against the installed package; orientations against SciPy."""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch
from metaworld import ALL_V3_ENVIRONMENTS, SawyerXYZEnv
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation
from torch import Tensor

from metarl.envs.metaworld.caging import caging, caging_by_sides, caging_handle
from metarl.envs.metaworld.rewards import (
    close_quaternion,
    distance,
    funnel,
    gaussian,
    hamacher_product,
    lifting,
    long_tail,
    norm,
    peaked,
    rectangular_prism,
)
from metarl.envs.metaworld.scene import Names, Scene, quaternion_of

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
CLOSE = {torch.float32: 1e-6, torch.float64: 1e-13}  # numbers of size 1


def draws(dtype: torch.dtype, *shape: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=dtype) * (high - low) + low


def assert_close(found: Tensor, expected: list[float], atol: float) -> None:
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=atol)


# --- primitives -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("sigmoid", [long_tail, gaussian])
@pytest.mark.parametrize("lower", [0.0, 0.25])
def test_tolerance_is_metaworlds(sigmoid: Callable, lower: float, dtype: torch.dtype):
    """On both sides of the bounds, inside, on the borders, and with a margin of 0; each world its own margin."""
    upper = 0.5
    borders = [0.0, lower, upper, lower - 1e-12, math.nextafter(upper, 1), lower - 0.1, upper + 0.1]
    x = torch.cat([draws(dtype, 500, low=-0.5, high=1.5), torch.tensor(borders, dtype=dtype).repeat(50)])
    margin = draws(dtype, len(x), low=0.05, seed=1)
    margin[::5] = 0.0
    found = sigmoid(x, upper, margin, lower=lower)
    name, pairs = sigmoid.__name__, list(zip(x.tolist(), margin.tolist(), strict=True))
    expected = [reward_utils.tolerance(a, (lower, upper), b, name) for a, b in pairs]
    assert found.dtype == dtype
    assert_close(found, expected, CLOSE[dtype])
    assert_close(
        sigmoid(x, upper, 0.3, lower=lower),
        [reward_utils.tolerance(a, (lower, upper), 0.3, name) for a, _ in pairs],
        CLOSE[dtype],
    )
    step = found[margin == 0]
    assert step.eq(1).logical_or(step.eq(0)).all()
    assert torch.equal(step.eq(1), ((lower <= x) & (x <= upper))[margin == 0])


@pytest.mark.parametrize("sigmoid", [long_tail, gaussian])
def test_tolerance_is_a_tenth_at_the_margin(sigmoid: Callable):
    x = torch.tensor([0.5 + 0.3, 0.25 - 0.3], dtype=torch.float64)
    assert_close(sigmoid(x, 0.5, 0.3, lower=0.25), [0.1, 0.1], 1e-13)


@BOTH
def test_hamacher_product_is_metaworlds(dtype: torch.dtype):
    a, b = draws(dtype, 1000, 2).unbind(-1)
    corners = torch.tensor(list(itertools.product([0.0, 1e-6, 0.5, 1.0], repeat=2)), dtype=dtype)
    a, b = torch.cat([a, corners[:, 0]]), torch.cat([b, corners[:, 1]])
    found = hamacher_product(a, b)
    assert found.dtype == dtype
    expected = [reward_utils.hamacher_product(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    assert_close(found, expected, CLOSE[dtype])


@BOTH
def test_hamacher_product_is_a_t_norm(dtype: torch.dtype):
    """Commutative, in [0, 1], monotone, 1 is neutral, 0 absorbs; never above the smaller of the two."""
    steps = torch.linspace(0, 1, 41, dtype=dtype)
    a, b = torch.cartesian_prod(steps, steps).unbind(-1)
    found = hamacher_product(a, b)
    assert torch.equal(found, hamacher_product(b, a))
    assert found.min() >= 0
    assert (found <= torch.minimum(a, b) + CLOSE[dtype]).all()
    assert (found.view(41, 41).diff(dim=0) >= -CLOSE[dtype]).all()
    assert_close(hamacher_product(steps, torch.ones_like(steps)), steps.tolist(), CLOSE[dtype])
    assert hamacher_product(steps, torch.zeros_like(steps)).eq(0).all()


@BOTH
def test_rectangular_prism_is_metaworlds(dtype: torch.dtype):
    """Boxes that point to any of the eight directions; points inside, outside, on the faces and in the corners."""
    n = 400
    zero, size = draws(dtype, n, 3, low=-1), draws(dtype, n, 3, low=0.1, seed=1)
    one = zero + torch.where(draws(dtype, n, 3, seed=2) < 0.5, size, -size)
    part = draws(dtype, n, 3, low=-0.25, high=1.25, seed=3)
    x = zero + part * (one - zero)
    face = torch.arange(n) % 4
    for axis in range(3):
        x[face == axis, axis] = torch.where(part > 0.5, one, zero)[face == axis, axis]
    x[:8], x[8:16] = zero[:8], one[8:16]
    found = rectangular_prism(x, zero, one)
    assert found.dtype == dtype
    points = (x.double().numpy(), zero.double().numpy(), one.double().numpy())
    expected = [float(reward_utils.rect_prism_tolerance(*three)) for three in zip(*points, strict=True)]
    assert_close(found, expected, 10 * CLOSE[dtype])
    assert found[:8].eq(0).all()
    assert_close(found[8:16], [1.0] * 8, CLOSE[dtype])
    assert 50 < found.lt(1).sum() < n - 50  # both kinds


@BOTH
def test_norm_and_distance(dtype: torch.dtype):
    a, b = draws(dtype, 100, 3, low=-1), draws(dtype, 100, 3, low=-1, seed=1)
    assert_close(norm(a), np.linalg.norm(a.double().numpy(), axis=-1).tolist(), 4 * CLOSE[dtype])
    assert_close(distance(a, b), np.linalg.norm((a - b).double().numpy(), axis=-1).tolist(), 4 * CLOSE[dtype])
    assert distance(a, a).eq(0).all()


@BOTH
def test_terms_of_version_1(dtype: torch.dtype):
    """As written out in Meta-World's ``compute_reward``; their constants are 1000, 0.01, 0.001 and 100."""
    progress, remaining = draws(dtype, 500, low=-2, high=1), draws(dtype, 500, seed=1)
    for found, c2, c3, least in (
        (peaked(progress, remaining), 0.01, 0.001, 0.0),
        (peaked(progress, remaining, width=0.003, least=-math.inf), 0.003, 0.0003, -math.inf),
    ):
        expected = [
            max(1000 * p + 1000 * (np.exp(-(r**2) / c2) + np.exp(-(r**2) / c3)), least)
            for p, r in zip(progress.tolist(), remaining.tolist(), strict=True)
        ]
        assert found.dtype == dtype
        assert_close(found, expected, 4000 * CLOSE[dtype])

    #         height: at rest, on the way, above the goal; each nowhere, held, lifted, both
    z = torch.tensor([0.02, 0.07, 0.3], dtype=dtype).repeat_interleave(4)
    held, lifted = torch.tensor([False, True, False, True] * 3), torch.tensor([False, False, True, True] * 3)
    rest, goal = torch.full_like(z, 0.02), torch.full_like(z, 0.12)
    found = lifting(z, rest, goal, lifted=lifted, held=held)
    assert_close(found, [0, 0, 12, 12, 0, 7, 12, 12, 0, 12, 12, 12], 100 * CLOSE[dtype])


@BOTH
def test_funnel_and_quaternion(dtype: torch.dtype):
    radius = torch.tensor([0.0, 0.01, 0.02, 0.11], dtype=dtype)
    expected = [0.0, 0.0, 0.02 * math.log(0.01) + 0.2, 0.02 * math.log(0.1) + 0.2]
    assert_close(funnel(radius, 0.01, slope=0.02, height=0.2), expected, 10 * CLOSE[dtype])
    quat = torch.tensor([[1.0, 0, 0, 0], [1, 0.1, 0, 0], [1, 0, 0.4, 0], [-1, 0, 0, 0]], dtype=dtype)
    assert_close(close_quaternion(quat, (1.0, 0.0, 0.0, 0.0)), [1.0, 0.75, 0.0, 0.0], CLOSE[dtype])
    assert_close(close_quaternion(quat, (1.0, 0.0, 0.0, 0.0), margin=0.5), [1.0, 0.8, 0.2, 0.0], CLOSE[dtype])


# --- orientation ----------------------------------------------------------------------------------


@BOTH
def test_quaternions_are_scipys(dtype: torch.dtype):
    """Random rotations; each of the four numbers is the largest in many, with either sign."""
    quat = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    matrix = torch.from_numpy(Rotation.from_quat(quat).as_matrix()).to(dtype)
    expected = Rotation.from_matrix(matrix.double().numpy()).as_quat()
    found = quaternion_of(matrix.flatten(1))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=10 * CLOSE[dtype])
    assert np.bincount(np.abs(expected).argmax(-1)).min() > 500


@BOTH
def test_quaternions_of_turns_by_right_angles_are_scipys(dtype: torch.dtype):
    """The 24 rotations of a cube: half turns, where w is 0, and ties between two and four numbers."""
    turns = Rotation.create_group("O").as_matrix().round()
    assert len(turns) == 24
    found = quaternion_of(torch.from_numpy(turns).to(dtype).flatten(1))
    expected = Rotation.from_matrix(turns).as_quat()
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=CLOSE[dtype])


@pytest.mark.parametrize("noise", [1e-17, 1e-16, 1e-15])
def test_quaternions_near_ties_are_scipys(noise: float):
    """What lies at right angles but for the last bits: there a hair decides the sign, so it has to be the same hair."""
    quat = Rotation.create_group("O").as_quat().repeat(200, axis=0)
    quat += noise * np.random.default_rng(0).normal(size=quat.shape)
    matrix = np.zeros((len(quat), 9))
    for row, (x, y, z, w) in zip(matrix, quat, strict=True):
        mujoco.mju_quat2Mat(row, np.array([w, x, y, z]))
    found = quaternion_of(torch.from_numpy(matrix)).numpy()
    np.testing.assert_allclose(found, Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_quat(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("axis", range(3))
def test_quaternions_near_half_turns_are_scipys(axis: int):
    """Where w changes its sign, the others do not."""
    angle = math.pi + np.array([-1e-3, -1e-9, 0.0, 1e-9, 1e-3])
    matrix = Rotation.from_rotvec(angle[:, None] * np.eye(3)[axis]).as_matrix()
    found = quaternion_of(torch.from_numpy(matrix).flatten(1)).numpy()
    np.testing.assert_allclose(found, Rotation.from_matrix(matrix).as_quat(), rtol=0, atol=1e-13)
    assert (found[:, axis] > 0.99).all()
    assert found[0, 3] > 0 > found[-1, 3]


# --- caging ---------------------------------------------------------------------------------------


class Places(Names):
    """Given positions [world 3] under the names of the model."""

    def __init__(self, places: dict[str, Tensor]) -> None:
        self._places = places

    def get(self, field: str, name: str) -> Tensor:
        return self._places[name]


def gripper_scene(dtype: torch.dtype, n: int = 400) -> tuple[Scene, Tensor]:
    """Grippers around, beside and far from an object, which lies where it began or was carried; and the object."""
    points = draws(torch.float64, n, 8, 3, low=-0.2, high=0.2).unbind(1)
    far = torch.arange(n)[:, None] % 4 == 0
    tcp, begun = points[0] + points[0].new_tensor((0.0, 0.6, 0.25)), points[1] + points[1].new_tensor((0.0, 0.6, 0.1))
    obj = torch.where(far, begun, tcp + 0.03 * points[2])
    reach = points[3].new_tensor((0.0, 1.0, 0.0)) * draws(torch.float64, n, 1, high=0.06, seed=1)
    places = {"leftpad": obj + reach + 0.02 * points[3], "rightpad": obj - reach + 0.02 * points[4]}
    places |= {"leftEndEffector": tcp + 0.1 * points[5], "rightEndEffector": tcp - 0.1 * points[5]}
    places["hand"] = tcp + points[6]
    episode = {"obj_init": torch.where(far, obj, begun), "init_tcp": points[7] + points[7].new_tensor((0.0, 0.6, 0.6))}
    action = draws(torch.float64, n, 4, low=-1, seed=2)
    names = Places({name: place.to(dtype) for name, place in places.items()})
    return Scene(names, {name: place.to(dtype) for name, place in episode.items()}, action.to(dtype)), obj.to(dtype)


def official_caging(method: Callable, scene: Scene, obj: Tensor, init: Tensor, **options: object) -> list[float]:
    """Meta-World's method, world by world, on a stand-in for its environment."""

    def rows(x: Tensor) -> np.ndarray:
        return x.double().numpy()

    left, right, tcp, effort = rows(scene.left_pad), rows(scene.right_pad), rows(scene.tcp), rows(scene.action)
    begun, place, init_tcp = rows(init), rows(obj), rows(scene.init_tcp)
    found = []
    for i in range(len(obj)):
        env = SimpleNamespace(get_body_com={"leftpad": left[i], "rightpad": right[i]}.__getitem__, tcp_center=tcp[i])
        env.init_left_pad, env.init_right_pad, env.init_tcp = left[i], right[i], init_tcp[i]
        env.obj_init_pos = env.stick_init_pos = begun[i]
        found.append(float(method(env, effort[i], place[i], **options)))
    return found


CAGING_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-11}  # margins near 0 enlarge what float32 rounds


@BOTH
@pytest.mark.parametrize("density", ["", "medium", "high"])
@pytest.mark.parametrize("desired", [1.0, 0.4])
def test_caging_is_metaworlds(density: str, desired: float, dtype: torch.dtype):
    scene, obj = gripper_scene(dtype)
    options = {"obj_radius": 0.01, "pad_success_thresh": 0.05, "xz_thresh": 0.01}
    options |= {"object_reach_radius": 0.02, "desired_gripper_effort": desired}
    found = caging(scene, obj, density=density, **options)
    flags = {f"{density}_density": True} if density else {}
    method = SawyerXYZEnv._gripper_caging_reward
    assert found.dtype == dtype
    assert_close(found, official_caging(method, scene, obj, scene.obj_init, **options, **flags), CAGING_CLOSE[dtype])
    assert found.min() >= 0
    assert found.max() <= 1
    gripped = caging(scene, obj, **options)
    assert gripped.gt(0).sum() > 20  # closed around the object
    assert gripped.eq(0).sum() > 20


@BOTH
def test_caging_from_another_place_is_stick_pushs(dtype: torch.dtype):
    """There the stick counts, not the object; so it does with ``obj_init``."""
    scene, obj = gripper_scene(dtype)
    options = {"obj_radius": 0.04, "pad_success_thresh": 0.05, "xz_thresh": 0.01}
    init = scene.obj_init + scene.obj_init.new_tensor((0.1, 0.05, -0.1))
    found = caging(scene, obj, obj_init=init, density="high", **options)
    method = ALL_V3_ENVIRONMENTS["stick-push-v3"]._gripper_caging_reward
    expected = official_caging(method, scene, obj, init, object_reach_radius=0.01, high_density=True, **options)
    assert_close(found, expected, CAGING_CLOSE[dtype])
    assert not torch.allclose(found, caging(scene, obj, density="high", **options))


@BOTH
@pytest.mark.parametrize(
    ("name", "xz_thresh", "grip_margin"),
    [
        ("sweep-v3", 0.005, 0.01),
        ("sweep-into-v3", 0.01, 0.005),
        ("soccer-v3", 0.005, 0.01),
        ("push-back-v3", 0.01, 0.003),
    ],
)
def test_caging_by_sides_is_metaworlds(name: str, xz_thresh: float, grip_margin: float, dtype: torch.dtype):
    scene, obj = gripper_scene(dtype)
    found = caging_by_sides(scene, obj, obj_radius=0.01, xz_thresh=xz_thresh, grip_margin=grip_margin)
    method = ALL_V3_ENVIRONMENTS[name]._gripper_caging_reward
    assert found.dtype == dtype
    assert_close(found, official_caging(method, scene, obj, scene.obj_init, obj_radius=0.01), CAGING_CLOSE[dtype])
    assert found.gt(0.9).any()


def test_caging_a_handle_forgives_a_hand_elsewhere_along_it():
    """Where the hand is within half a length of the middle, the object counts as at its x; elsewhere as it lies."""
    scene, obj = gripper_scene(torch.float64)
    options = {"obj_radius": 0.015, "pad_success_thresh": 0.02, "xz_thresh": 0.01, "object_reach_radius": 0.01}
    moved = torch.cat([scene.hand[:, :1], obj[:, 1:]], dim=-1)
    along = (scene.hand - obj)[:, 0].abs() < 0.07
    assert 50 < along.sum() < len(obj) - 50
    for density in ("medium", "high"):
        found = caging_handle(scene, obj, length=0.14, density=density)
        there, here = (caging(scene, x, density=density, **options) for x in (moved, obj))
        assert torch.equal(found, torch.where(along, there, here))
        assert not torch.allclose(there, here)
