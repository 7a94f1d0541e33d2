"""The losses and the divergence by hand arithmetic, on a policy whose likelihood ratios are chosen."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.func import grad

from metarl.losses.policy_gradient import clipped_ratio_loss, log_likelihood_loss, mean_kl, mean_over, ratio_loss
from metarl.networks.distributions import DiagGaussian
from metarl.networks.mlp import GaussianMLP
from metarl.types import Params, TrajectoryBatch


@dataclass(frozen=True)
class Shared(GaussianMLP):
    """N(mean, exp(log_std)^2) for every observation."""

    def __call__(self, params: Params, obs: Tensor) -> DiagGaussian:
        mean = params["mean"] + 0 * obs
        return DiagGaussian(mean, params["log_std"].expand_as(mean))


POLICY = Shared()


def real(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def params(mean: float = 0.0, std: float = 1.0) -> Params:
    return {"mean": real([mean]), "log_std": real([math.log(std)])}


def batch_of(
    advantage: list[float], *, ratio: list[float] | None = None, valid: list[int] | None = None
) -> TrajectoryBatch:
    """One world; actions 1, 2, 3 ... of N(0, 1), recorded as if an older policy had been ``ratio`` times less
    likely to take them."""
    count = len(advantage)
    shape = (1, count)
    action = torch.arange(1, count + 1, dtype=torch.float64).view(1, count, 1) / 4
    dist = POLICY(params(), torch.zeros(1, count, 1, dtype=torch.float64))
    log_prob = dist.log_prob(action) - real([ratio or [1.0] * count]).log()
    never = torch.zeros(shape, dtype=torch.bool)
    return TrajectoryBatch(
        obs=torch.zeros(1, count, 1, dtype=torch.float64),
        action=action,
        reward=torch.zeros(shape, dtype=torch.float64),
        terminated=never,
        truncated=never,
        clock=torch.zeros(shape, dtype=torch.int64),
        success=never,
        valid=torch.tensor([valid or [1] * count], dtype=torch.bool),
        log_prob=log_prob,
        dist=dist,
        next_obs=torch.zeros(1, count, 1, dtype=torch.float64),
        advantage=real([advantage]),
        target=torch.zeros(shape, dtype=torch.float64),
    )


RATIOS, ADVANTAGES = [1.5, 1.5, 0.5, 0.5, 1.1], [2.0, -2.0, 2.0, -2.0, 1.0]


def test_the_ratio_loss_by_hand():
    """1.5 * 2 - 1.5 * 2 + .5 * 2 - .5 * 2 + 1.1 * 1 = 1.1, over 5 steps."""
    batch = batch_of(ADVANTAGES, ratio=RATIOS)
    assert ratio_loss(POLICY, params(), batch).item() == pytest.approx(-1.1 / 5, rel=1e-12)


def test_the_clipped_loss_by_hand():
    """Clip .3, the smaller of r A and clip(r) A:

    r = 1.5, A =  2:  min( 3,  1.3 *  2 =  2.6) =  2.6   no gain from going further up
    r = 1.5, A = -2:  min(-3,  1.3 * -2 = -2.6) = -3     but the whole loss
    r =  .5, A =  2:  min( 1,   .7 *  2 =  1.4) =  1
    r =  .5, A = -2:  min(-1,   .7 * -2 = -1.4) = -1.4
    r = 1.1, A =  1:  inside: 1.1                        sum .3
    """
    batch = batch_of(ADVANTAGES, ratio=RATIOS)
    assert clipped_ratio_loss(POLICY, params(), batch, 0.3).item() == pytest.approx(-0.3 / 5, rel=1e-12)
    wide = clipped_ratio_loss(POLICY, params(), batch, 0.6)  # negative control: nothing is clipped
    assert wide.item() == pytest.approx(-1.1 / 5, rel=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.5, 2.0, False), (1.5, -2.0, True), (0.5, 2.0, True), (0.5, -2.0, False), (1.1, 1.0, True)],
)
def test_the_clipped_loss_stops_pushing_where_the_gain_is_clipped(ratio: float, advantage: float, moves: bool):
    batch = batch_of([advantage], ratio=[ratio])
    slope = grad(clipped_ratio_loss, argnums=1)(POLICY, params(), batch, 0.3)["mean"].item()
    # d r / d mean = r (a - mean) = r / 4
    assert slope == pytest.approx(-ratio * advantage / 4 if moves else 0.0, rel=1e-12)


def test_the_log_likelihood_loss_by_hand():
    """Standard normal at .25 and .5 with advantages 3 and -1: -(3 l(.25) - l(.5)) / 2,
    l(a) = -a^2/2 - log(2 pi)/2 = -.03125 - .9189385 and -.125 - .9189385."""
    expected = -(3 * (-0.03125 - 0.9189385332) - (-0.125 - 0.9189385332)) / 2
    loss = log_likelihood_loss(POLICY, params(), batch_of([3.0, -1.0]))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_all_losses_have_the_policy_gradient_at_the_acting_policy():
    """-(1/2) sum A_t (a_t - mean) = -(3 * .25 - 1 * .5) / 2 = -.125, whatever the surrogate."""
    batch = batch_of([3.0, -1.0])
    for loss in (log_likelihood_loss, ratio_loss, lambda *inputs: clipped_ratio_loss(*inputs, 0.1)):
        slope = grad(loss, argnums=1)(POLICY, params(), batch)["mean"]
        assert slope.item() == pytest.approx(-0.125, rel=1e-12)
    away = params(mean=1.0)  # negative control: elsewhere they part
    slopes = [grad(x, argnums=1)(POLICY, away, batch)["mean"].item() for x in (log_likelihood_loss, ratio_loss)]
    assert abs(slopes[0] - slopes[1]) > 0.01


def test_the_divergence_is_zero_with_its_gradient_at_the_policy_that_acted():
    batch = batch_of([1.0, 2.0])
    assert mean_kl(POLICY, params(), batch).item() == 0.0
    assert all(g.abs().max() < 1e-15 for g in grad(mean_kl, argnums=1)(POLICY, params(), batch).values())


def test_the_divergence_is_from_the_policy_that_acted_to_the_new_one():
    """KL(N(0, 1) || N(1, 2^2)) = log 2 + (1 + 1) / 8 - 1/2; the other way round it is -log 2 + 5/2 - 1/2 =
    1.307.
    """
    kl = mean_kl(POLICY, params(mean=1.0, std=2.0), batch_of([1.0, 2.0])).item()
    assert kl == pytest.approx(math.log(2) - 0.25, rel=1e-12)


LOSSES = {
    "log-likelihood": log_likelihood_loss,
    "ratio": ratio_loss,
    "clipped ratio": lambda *inputs: clipped_ratio_loss(*inputs, 0.3),
    "divergence": mean_kl,
}


@pytest.mark.parametrize("name", LOSSES)
def test_invalid_steps_count_neither_in_the_sum_nor_in_the_number(name: str):
    """Steps 2 and 4 invalid: the loss is that of steps 1 and 3 alone, whatever stands in the others."""
    mask = [1, 0, 1, 0]
    point = params(mean=0.3, std=1.2)
    batch = batch_of([1.0, 1e6, -2.0, 1e6], valid=mask)
    kept = torch.tensor(mask, dtype=torch.bool)
    fields = {
        key: value[:, kept] if isinstance(value, Tensor) else DiagGaussian(*(leaf[:, kept] for leaf in value))
        for key, value in batch._asdict().items()
    }
    alone = TrajectoryBatch(**fields)
    soiled = batch._replace(dist=DiagGaussian(batch.dist.mean.clone(), batch.dist.log_std))
    soiled.dist.mean[:, ~kept] = 1e3
    expected = LOSSES[name](POLICY, point, alone).item()
    assert LOSSES[name](POLICY, point, soiled).item() == pytest.approx(expected, rel=1e-12)
    slope, slope_alone = (grad(LOSSES[name], argnums=1)(POLICY, point, x)["mean"] for x in (soiled, alone))
    torch.testing.assert_close(slope, slope_alone, rtol=1e-12, atol=0)
    everything = LOSSES[name](POLICY, point, soiled._replace(valid=torch.ones_like(soiled.valid))).item()
    assert abs(everything - expected) > 1.0  # negative control


def test_the_mean_of_no_step_is_zero():
    x, nothing = real([[3.0, 4.0]]), torch.zeros(1, 2, dtype=torch.bool)
    assert mean_over(x, nothing).item() == 0.0
    assert mean_over(x, ~nothing).item() == 3.5
