"""Conjugate gradients, the line search, and the step they make together."""

import math

import pytest
import torch
from torch import Tensor

from metarl.algorithms.outer import TRPO
from metarl.losses.trust_region import backtrack, conjugate_gradient
from metarl.types import Params


def real(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


# --- conjugate gradients -------------------------------------------------------------------------

MATRIX = real([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 2.0]])


def test_three_iterations_solve_three_equations_exactly():
    b = real([1.0, -2.0, 0.5])
    solution = torch.linalg.solve(MATRIX, b)
    found = conjugate_gradient(lambda v: MATRIX @ v, b, iterations=3, tolerance=0.0)
    torch.testing.assert_close(found, solution, rtol=1e-12, atol=1e-12)
    unfinished = conjugate_gradient(lambda v: MATRIX @ v, b, iterations=2, tolerance=0.0)  # negative control
    assert (unfinished - solution).abs().max() > 1e-3


def test_the_first_iteration_by_hand():
    """A = diag(1, 4), b = (1, 1): step = |b|^2 / b.Ab = 2 / 5."""
    found = conjugate_gradient(lambda v: real([1.0, 4.0]) * v, real([1.0, 1.0]), iterations=1)
    assert found.tolist() == pytest.approx([0.4, 0.4])


def test_k_distinct_eigenvalues_take_k_iterations():
    """50 equations, 4 distinct eigenvalues."""
    diagonal = real([1.0, 10.0, 100.0, 1000.0]).repeat_interleave(13)[:50]
    b = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = conjugate_gradient(lambda v: diagonal * v, b, iterations=4, tolerance=0.0)
    torch.testing.assert_close(found, b / diagonal, rtol=1e-8, atol=1e-10)


def test_rounding_of_the_products_does_not_grow():
    """100 equations, eigenvalues from 1 to 1e-6, multiplied in float32, and the same ones in another order: plain
    conjugate gradients answer 2e-2 apart after 20 iterations."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(100, 100, generator=generator, dtype=torch.float64)).Q
    matrix = basis @ real(10 ** -torch.linspace(0, 6, 100, dtype=torch.float64)).diag() @ basis.mT
    b, order = torch.randn(100, generator=generator, dtype=torch.float64), torch.randperm(100, generator=generator)

    def solve(matrix: Tensor, b: Tensor) -> Tensor:
        return conjugate_gradient(lambda v: (matrix @ v.to(matrix.dtype)).double(), b, iterations=20)

    exact = solve(matrix, b)
    ours, reordered = solve(matrix.float(), b), solve(matrix[order][:, order].float(), b[order])
    assert (ours[order] - reordered).norm() < 1e-4 * exact.norm()
    assert (ours - exact).norm() < 1e-4 * exact.norm()


def test_it_stops_once_the_residual_is_small():
    calls = []

    def product(v: Tensor) -> Tensor:
        calls.append(v)
        return 2 * v

    found = conjugate_gradient(product, real([3.0, 4.0]), iterations=10)
    assert found.tolist() == [1.5, 2.0]
    assert len(calls) == 1
    assert conjugate_gradient(product, real([0.0, 0.0]), iterations=10).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("eigenvalue", [-1.0, 0.0, math.nan])
def test_it_keeps_the_answer_from_before_a_direction_without_curvature(eigenvalue: float):
    """A = diag(1, 1, e), b = (1, 2, 3) ... the first product sees curvature 1 + 4 + 9 e; with e <= -5/9 or
    NaN there is none and the answer stays 0. With e = 0 the first step is 14 / 5 and the second has none
    left.
    """
    diagonal = real([1.0, 1.0, eigenvalue])
    found = conjugate_gradient(lambda v: diagonal * v, real([1.0, 2.0, 3.0]), iterations=10)
    assert found.isfinite().all()
    if eigenvalue != 0:
        assert found.tolist() == [0.0, 0.0, 0.0]
    else:
        assert found @ real([1.0, 2.0, 3.0]) > 0  # still downhill


def test_the_scale_of_the_gradient_does_not_decide_whether_it_is_followed():
    """x solves A x = b, so c x solves A x = c b: a natural gradient step is scaled to the KL bound anyway."""
    b = real([1.0, -2.0, 0.5])
    large = conjugate_gradient(lambda v: MATRIX @ v, b, iterations=3)
    small = conjugate_gradient(lambda v: MATRIX @ v, 1e-6 * b, iterations=3)
    torch.testing.assert_close(1e6 * small, large, rtol=1e-6, atol=1e-9)


# --- the line search -----------------------------------------------------------------------------


def search(losses: list[float], kls: list[float], *, max_kl: float = 1.0) -> tuple[Tensor, float, float, int]:
    """From 10 a full step of 8, halved: points 2, 6, 8, 9 have the losses and divergences given; before, it
    was 0.
    """
    points = {2.0: 0, 6.0: 1, 8.0: 2, 9.0: 3}

    def evaluate(point: Tensor) -> tuple[float, float]:
        k = points[point.item()]
        return losses[k], kls[k]

    return backtrack(evaluate, real([10.0]), real([8.0]), loss_before=0.0, max_kl=max_kl, ratio=0.5, max_backtracks=4)


@pytest.mark.parametrize(
    ("losses", "kls", "point", "k"),
    [
        ([-1.0, -9.0, -9.0, -9.0], [0.5, 0.1, 0.1, 0.1], 2.0, 0),  # the longest, not the best
        ([1.0, -1.0, -9.0, -9.0], [0.5, 0.4, 0.1, 0.1], 6.0, 1),  # the loss rose
        ([0.0, -1.0, -9.0, -9.0], [0.5, 0.4, 0.1, 0.1], 6.0, 1),  # the loss stayed
        (
            [-1.0, -1.0, -1.0, -9.0],
            [4.0, 2.0, 1.0, 0.1],
            8.0,
            2,
        ),  # too far; exactly on the bound is near enough
        ([math.nan, -1.0, -9.0, -9.0], [0.5, 0.4, 0.1, 0.1], 6.0, 1),
        ([-1.0, -1.0, -9.0, -9.0], [math.nan, 0.4, 0.1, 0.1], 6.0, 1),
        ([-math.inf, -1.0, -9.0, -9.0], [math.inf, 0.4, 0.1, 0.1], 6.0, 1),
    ],
)
def test_the_longest_step_that_lowers_the_loss_within_the_bound(losses: list, kls: list, point: float, k: int):
    found, loss, kl, backtracks = search(losses, kls)
    assert (found.item(), backtracks) == (point, k)
    assert (loss, kl) == (losses[k], kls[k])


def test_where_no_step_will_do_it_stays():
    found, loss, kl, backtracks = search([1.0, math.nan, -1.0, 1.0], [0.1, 0.1, 2.0, 0.1])
    assert (found.item(), loss, kl, backtracks) == (10.0, 0.0, 0.0, 4)


# --- the step ------------------------------------------------------------------------------------


class Quadratic:
    """A Gaussian bandit's meta-problem in closed form: linear loss g . (theta - start), and
    KL = (theta - start)^T H (theta - start) / 2 with a ``slack`` below it, so that rounding does not decide.
    """

    def __init__(self, start: Params, gradient: Tensor, hessian: Tensor, slack: float = 1e-9) -> None:
        self.start, self.slope, self.hessian, self.slack = start["theta"].clone(), gradient, hessian, slack

    def gradient(self, meta: Params, loss: object) -> tuple[Params, float]:
        return {"theta": self.slope}, self.evaluate(meta, loss)[0]

    def evaluate(self, meta: Params, loss: object) -> tuple[float, float]:
        away = meta["theta"] - self.start
        return (self.slope @ away).item(), ((1 - self.slack) * away @ self.hessian @ away / 2).item()

    def curvature(self, meta: Params, num_samples: int):
        return lambda v: {"theta": self.hessian @ v["theta"]}


@pytest.mark.parametrize("slope", [3.0, -0.2])
@pytest.mark.parametrize("bound", [0.01, 0.3])
def test_the_full_natural_step_of_the_bandit(slope: float, bound: float):
    """H = (1 - alpha)^2 / s^2 for alpha = .1, s = .5: against the gradient's sign by sqrt(2 delta) s / (1 -
    alpha), whatever its size, and the divergence is then delta.
    """
    meta = {"theta": real([0.7])}
    problem = Quadratic(meta, real([slope]), real([[0.9**2 / 0.5**2]]))
    after, _, metrics = TRPO(max_kl=bound, damping=0.0).step(problem, meta, {})
    step = -math.copysign(math.sqrt(2 * bound) * 0.5 / 0.9, slope)
    assert (after["theta"] - 0.7).item() == pytest.approx(step, rel=1e-10)
    assert metrics["train/backtracks"] == 0
    assert metrics["train/kl"] == pytest.approx(bound, rel=1e-6)
    # negative control: without the inner derivative in H the step is shorter by 1 - alpha
    forgetful = Quadratic(meta, real([slope]), real([[1 / 0.5**2]]))
    shorter, _, _ = TRPO(max_kl=bound, damping=0.0).step(forgetful, meta, {})
    assert (shorter["theta"] - 0.7).item() == pytest.approx(0.9 * step, rel=1e-9)


def test_the_step_is_along_the_natural_gradient():
    """H^-1 g, of the length at which x^T H x / 2 = delta."""
    meta, slope = {"theta": real([0.1, 0.2, 0.3])}, real([1.0, -2.0, 0.5])
    after, _, _ = TRPO(max_kl=0.02, damping=0.0).step(Quadratic(meta, slope, MATRIX), meta, {})
    step = after["theta"] - meta["theta"]
    natural = -torch.linalg.solve(MATRIX, slope)
    torch.testing.assert_close(step / step.norm(), natural / natural.norm(), rtol=1e-9, atol=1e-9)
    assert (step @ MATRIX @ step / 2).item() == pytest.approx(0.02, rel=1e-8)


@pytest.mark.parametrize("excess", [1.0, 3.0, 40.0])
def test_a_divergence_larger_than_its_quadratic_model_is_backed_off_from(excess: float):
    """The true KL is 1 + excess times the model: the first k with (1 + excess) .8^(2k) <= 1."""
    meta = {"theta": real([0.0, 0.0, 0.0])}
    problem = Quadratic(meta, real([1.0, -2.0, 0.5]), MATRIX, slack=-excess)
    after, _, metrics = TRPO(max_kl=0.02, damping=0.0).step(problem, meta, {})
    k = math.ceil(math.log(1 + excess) / (2 * math.log(1 / 0.8)))
    assert metrics["train/backtracks"] == k
    away = after["theta"]
    true_kl = ((1 + excess) * away @ MATRIX @ away / 2).item()
    assert 0.8**2 * 0.02 * 0.99 < true_kl <= 0.02


def test_damping_shortens_the_step_in_flat_directions():
    """H = diag(1, 1e-8) hardly sees the second direction; with damping .1 the step there is g / .1, not g /
    1e-8.
    """
    meta = {"theta": real([0.0, 0.0])}
    problem = Quadratic(meta, real([1.0, 1.0]), real([1.0, 1e-8]).diag())
    damped, _, _ = TRPO(damping=0.1).step(problem, meta, {})
    free, _, _ = TRPO(damping=0.0).step(problem, meta, {})
    ratio = damped["theta"][1] / damped["theta"][0]
    assert ratio.item() == pytest.approx(1.1 / 0.1, rel=1e-6)
    assert (free["theta"][1] / free["theta"][0]).item() == pytest.approx(1e8, rel=1e-3)


def test_no_slope_no_step():
    meta = {"theta": real([0.7])}
    after, _, metrics = TRPO().step(Quadratic(meta, real([0.0]), real([[4.0]])), meta, {})
    assert torch.equal(after["theta"], meta["theta"])
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    "options",
    [
        {"max_kl": 0.0},
        {"cg_iterations": 0},
        {"damping": -1.0},
        {"backtrack_ratio": 1.0},
        {"max_backtracks": 0},
        {"curvature_samples": 0},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_by_name(options: dict):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        TRPO(**options)
