"""The trust-region step: natural gradient by conjugate gradients, then a backtracking line search."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Vector = Float[Tensor, " n"]


def conjugate_gradient(
    product: Callable[[Vector], Vector], b: Vector, *, iterations: int, tolerance: float = 1e-10
) -> Vector:
    """Solves A x = b for a symmetric positive definite A given by v -> A v (Nocedal & Wright 2006, algorithm 5.2).

    Every residual is made orthogonal to those before it again (Saad 2003, section 6.3): in exact arithmetic it is, but
    rounding of the products grows from one iteration to the next (``experiments/trpo_rounding.py``).

    Stops early when |r|² < ``tolerance`` |b|², or along a direction without positive curvature, where rounding has
    eaten the answer.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, residual_norm = b.clone(), b.dot(b)
    enough = tolerance * residual_norm
    units: list[Vector] = []
    for _ in range(iterations):
        if residual_norm <= enough:
            break
        image = product(direction)
        curvature = direction.dot(image)
        if not curvature > 0:
            break
        step = residual_norm / curvature
        x = x + step * direction
        units.append(residual / residual_norm.sqrt())
        residual = orthogonal(residual - step * image, torch.stack(units))
        new_norm = residual.dot(residual)
        direction = residual + (new_norm / residual_norm) * direction
        residual_norm = new_norm
    return x


def orthogonal(v: Vector, units: Float[Tensor, "k n"]) -> Vector:
    """``v`` without its parts along orthonormal vectors; a second pass takes what rounding left of the first."""
    for _ in range(2):
        v = v - (units @ v) @ units
    return v


def backtrack(
    evaluate: Callable[[Vector], tuple[float, float]],
    start: Vector,
    step: Vector,
    *,
    loss_before: float,
    max_kl: float,
    ratio: float,
    max_backtracks: int,
) -> tuple[Vector, float, float, int]:
    """The longest of start - ratio^k step, k < max_backtracks, that lowers the loss within KL <= max_kl.

    Args:
        evaluate: point -> (loss, KL from the policy at ``start``).

    Returns:
        The point, its loss and KL, and k; ``start`` itself with KL 0 and k = max_backtracks where none will do.
    """
    for k in range(max_backtracks):
        point = start - ratio**k * step
        loss, kl = evaluate(point)
        if loss < loss_before and kl <= max_kl:  # false for NaN
            return point, loss, kl, k
    return start, loss_before, 0.0, max_backtracks
