"""Value functions without memory: a network beside a policy's, or a baseline that is fitted anew to each batch."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import require, require_numbers
from metarl.networks.distributions import of_each
from metarl.networks.layers import apply_layers, init_layers
from metarl.networks.normalize import learned, normalized
from metarl.networks.protocol import Policy
from metarl.networks.recurrent import ActorCritic
from metarl.types import Params

NOT_FINITE = "the baseline's normal equations are not finite: check the rewards and observations"


def init_actor_critic(
    policy: Policy, value_sizes: tuple[int, ...], spec: EnvSpec, num_seen: int, generator: torch.Generator
) -> Params:
    """Of a policy that sees so many numbers in the place of observations, and of tanh layers of a value that is zero at
    first."""
    meta = policy.init(replace(spec, obs_dim=num_seen), generator)
    value = init_layers("value", (num_seen, *value_sizes, 1), generator)
    value[f"value.weight_{len(value_sizes)}"].zero_()
    return learned(meta) | value | meta  # the statistics behind what has moments


def actor_critic(policy: Policy, params: Params, seen: Float[Tensor, "*batch n in"]) -> ActorCritic:
    dist = of_each(policy(params, seen), seen)
    value = apply_layers(params, "value", normalized(params, seen), torch.tanh)
    return ActorCritic(dist, value.squeeze(-1), None)


@dataclass(frozen=True)
class LinearFeatureBaseline:
    """Linear in [o, o², t, t², t³, 1], o clipped to [-10, 10] and t in hundreds of steps (Duan et al. 2016); one fit a
    task, all tasks in one solve.

    It sees the clock, so it predicts the return up to the time limit, not an infinite-horizon value.
    """

    regularization: float = 1e-5
    """Ridge penalty; ten times larger at each retry where the solve fails."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "regularization", above=0)

    def features(
        self, obs: Float[Tensor, "*task env time obs"], clock: Int[Tensor, "*task env time"]
    ) -> Float[Tensor, "*task env time feature"]:
        """Float64: the powers of t are nearly collinear, and float32 normal equations lose them."""
        clipped = obs.double().clamp(-10, 10)
        hundreds = clock.double().unsqueeze(-1) / 100
        powers = torch.cat([hundreds, hundreds**2, hundreds**3, torch.ones_like(hundreds)], dim=-1)
        return torch.cat([clipped, clipped**2, powers], dim=-1)

    def fit(
        self,
        features: Float[Tensor, "*task env time feature"],
        target: Float[Tensor, "*task env time"],
        valid: Bool[Tensor, "*task env time"],
    ) -> Float[Tensor, "*task feature"]:
        """Least squares over the valid steps of each task: (XᵀX + reg I) w = Xᵀy."""
        x = features.flatten(-3, -2)
        weighted = x * valid.flatten(-2, -1).unsqueeze(-1)
        gram = weighted.mT @ x
        moment = weighted.mT @ target.double().flatten(-2, -1).unsqueeze(-1)
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        regularization = self.regularization
        while True:
            factor, failed = torch.linalg.cholesky_ex(gram + regularization * identity)
            if not failed.any():
                break
            regularization *= 10
            if regularization > 1e6:
                raise FloatingPointError(NOT_FINITE)
        coefficients = torch.cholesky_solve(moment, factor).squeeze(-1)
        if not coefficients.isfinite().all():
            raise FloatingPointError(NOT_FINITE)
        return coefficients

    def predict(
        self, coefficients: Float[Tensor, "*task feature"], features: Float[Tensor, "*task env time feature"]
    ) -> Float[Tensor, "*task env time"]:
        return (features @ coefficients.unsqueeze(-1).unsqueeze(-3)).squeeze(-1).float()


def trial_values(
    baseline: LinearFeatureBaseline,
    seen: Float[Tensor, "task env time in"],
    returns: Float[Tensor, "task env time"],
    valid: Bool[Tensor, "task env time"],
    *,
    one_fit: bool,
) -> Float[Tensor, "task env time"]:
    """What a baseline of ``seen`` and the clock of the trial predicts of trials that it was fitted to.

    Args:
        one_fit: to all trials: fitted to its own few trials, a task's baseline would swallow their credit. Else to each
            trial alone, as published Meta-World runs do.
    """
    clock = torch.arange(returns.shape[-1], device=returns.device).expand(returns.shape)
    fitted = [x.flatten(0, 1) if one_fit else x.unsqueeze(2) for x in (seen, clock, returns, valid)]
    seen, clock, target, counts = fitted
    features = baseline.features(seen, clock).where(counts.unsqueeze(-1), 0.0)
    return baseline.predict(baseline.fit(features, target, counts), features).view_as(returns)
