"""The inner step that the MAML family shares. For one task; callers ``vmap`` it."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.func import grad

from metarl.policies import GaussianMLP
from metarl.types import Params, TrajectoryBatch

Loss = Callable[[GaussianMLP, Params, TrajectoryBatch], Float[Tensor, ""]]


def adapt(
    policy: GaussianMLP,
    params: Params,
    batch: TrajectoryBatch,
    inner_lr: Params,
    loss: Loss,
    *,
    first_order: bool = False,
) -> Params:
    """φ = θ - α ∇L(θ; D) (Finn et al. 2017, equation 1).

    Args:
        inner_lr: α for each parameter, broadcastable to it.
        first_order: treat the gradient as a constant, so that ∂φ/∂θ = 1 (FOMAML).
    """
    gradient = grad(loss, argnums=1)(policy, params, batch)
    if first_order:
        gradient = {name: value.detach() for name, value in gradient.items()}
    return {name: params[name] - inner_lr[name] * gradient[name] for name in params}
