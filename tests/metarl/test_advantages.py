"""Returns, generalized advantages and normalization, by hand arithmetic."""

import pytest
import torch
from torch import Tensor

from metarl.losses.advantages import discounted_returns, gae, normalize


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def test_returns_by_hand_start_anew_after_an_episode():
    """gamma = .5: 2 + .5 * 0 = 2, 4 + .5 * 2 = 5 | 8, 1 + .5 * 8 = 5, 3 + .5 * 5 = 5.5"""
    reward, ended = real(4.0, 2.0, 3.0, 1.0, 8.0), flags(0, 1, 0, 0, 1)
    assert discounted_returns(reward, ended, 0.5).tolist() == [5.0, 2.0, 5.5, 5.0, 8.0]
    # negative control: without the border the second episode pays into the first, 2 + .5 * 5.5
    assert discounted_returns(reward, flags(0, 0, 0, 0, 1), 0.5)[1] == 4.75


def test_returns_of_an_unfinished_episode_stop_at_the_last_step():
    assert discounted_returns(real(1.0, 1.0), flags(0, 0), 0.5).tolist() == [1.5, 1.0]


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_returns_at_the_ends_of_the_discount(discount: float):
    reward = real(1.0, 2.0, 3.0)
    expected = [1.0, 2.0, 3.0] if discount == 0 else [6.0, 5.0, 3.0]
    assert discounted_returns(reward, flags(0, 0, 1), discount).tolist() == expected


def test_advantages_by_hand_with_truncation_and_termination_apart():
    """gamma = .5, lambda = .5, so an advantage hands a quarter on.

    t   r  V   V'  ends        delta                  A
    0   1  4   2               1 + .5*2 - 4 = -2      -2 + .25 * 5   = -.75
    1   4  2   6   truncated   4 + .5*6 - 2 = 5       5              (bootstraps, but takes no A of t = 2)
    2   2  8   4               2 + .5*4 - 8 = -4      -4 + .25 * -1  = -4.25
    3   3  4   9   terminated  3        - 4 = -1      -1             (no bootstrap)
    """
    reward, value, next_value = (
        real(1.0, 4.0, 2.0, 3.0),
        real(4.0, 2.0, 8.0, 4.0),
        real(2.0, 6.0, 4.0, 9.0),
    )
    never, terminated, truncated = flags(0, 0, 0, 0), flags(0, 0, 0, 1), flags(0, 1, 0, 0)
    coefficients = {"discount": 0.5, "gae_lambda": 0.5}
    advantage = gae(reward, value, next_value, terminated, truncated, **coefficients)
    assert advantage.tolist() == [-0.75, 5.0, -4.25, -1.0]
    # negative controls: a time limit taken for the end of the MDP, and one not noticed at all
    as_terminal = gae(reward, value, next_value, terminated | truncated, never, **coefficients)
    assert as_terminal.tolist() == [-1.5, 2.0, -4.25, -1.0]  # t = 1: 4 - 2, and t = 0: -2 + .25 * 2
    unnoticed = gae(reward, value, next_value, terminated, never, **coefficients)
    assert unnoticed.tolist() == [-1.015625, 3.9375, -4.25, -1.0]  # t = 1: 5 + .25 * -4.25


def test_a_constant_reward_with_its_true_value_has_no_advantage_at_a_time_limit():
    """Reward 1 for ever is worth V = 1 / (1 - gamma) = 50, and 1 + .98 * 50 - 50 = 0 in every step, the
    last one too. Taken for the end, the last step lacks gamma V = 49, and hands (gamma lambda)^k of it
    back: A_t = -.882^(7 - t) * 49, from -20.3459 to -49.
    """
    num_steps, discount, gae_lambda = 8, 0.98, 0.9
    ones = torch.ones(num_steps, dtype=torch.float64)
    value = ones / (1 - discount)
    last, never = torch.arange(num_steps) == num_steps - 1, torch.zeros(num_steps, dtype=torch.bool)
    coefficients = {"discount": discount, "gae_lambda": gae_lambda}
    bootstrapped = gae(ones, value, value, never, last, **coefficients)
    torch.testing.assert_close(bootstrapped, torch.zeros_like(ones), rtol=0, atol=1e-12)
    ended = gae(ones, value, value, last, never, **coefficients)
    closed_form = -(0.882 ** torch.arange(num_steps - 1, -1, -1, dtype=torch.float64)) * 49
    torch.testing.assert_close(ended, closed_form, rtol=1e-12, atol=0)
    assert ended[0].item() == pytest.approx(-20.3459, abs=5e-5)
    assert ended[-1].item() == pytest.approx(-49.0)


@pytest.mark.parametrize("border", ["terminated", "truncated"])
def test_an_episode_does_not_hear_of_the_next_one(border: str):
    """Bit for bit, whatever the second episode in the buffer earns and is worth."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3, 5, generator=generator)
    ended = torch.zeros(3, 10, dtype=torch.bool)
    ended[:, [4, 9]] = True
    never = torch.zeros_like(ended)
    kinds = (ended, never) if border == "terminated" else (never, ended)

    def first_half(second: Tensor, *kinds: Tensor) -> tuple[Tensor, Tensor]:
        reward, value = torch.cat([first, second], 1), torch.cat([first.cos(), second.sin()], 1)
        next_value = torch.cat([first.sin(), second.cos()], 1)
        advantage = gae(reward, value, next_value, *kinds, discount=0.9, gae_lambda=0.8)
        return advantage[:, :5], discounted_returns(reward, kinds[0] | kinds[1], 0.9)[:, :5]

    quiet, loud = torch.zeros(3, 5), 1e6 + torch.randn(3, 5, generator=generator)
    for one, other in zip(first_half(quiet, *kinds), first_half(loud, *kinds), strict=True):
        assert torch.equal(one, other)
    # negative control: without the flag of the first episode's end they are one episode
    for one, other in zip(first_half(quiet, never, never), first_half(loud, never, never), strict=True):
        assert (one - other).abs().max() > 1.0


def test_lambda_one_is_return_minus_value_and_lambda_zero_one_step():
    """The two ends of the equation: telescoped and one-step."""
    reward, value = real(1.0, 2.0, 3.0), real(0.5, -1.0, 4.0)
    next_value = real(-1.0, 4.0, 0.0)
    never, last = flags(0, 0, 0), flags(0, 0, 1)
    whole = gae(reward, value, next_value, last, never, discount=0.9, gae_lambda=1.0)
    torch.testing.assert_close(whole, discounted_returns(reward, last, 0.9) - value)
    one_step = gae(reward, value, next_value, last, never, discount=0.9, gae_lambda=0.0)
    torch.testing.assert_close(one_step, real(1 - 0.9 - 0.5, 2 + 3.6 + 1, 3 - 4.0))


def test_normalization_by_hand_leaves_invalid_steps_out():
    """Valid: 1, 3, 5, 7: mean 4, deviations -3 -1 1 3, population variance (9 + 1 + 1 + 9) / 4 = 5."""
    x = real(1.0, 3.0, 100.0, 5.0, 7.0, -100.0).view(1, 2, 3)
    valid = flags(1, 1, 0, 1, 1, 0).view(1, 2, 3)
    expected = real(-3.0, -1.0, 0.0, 1.0, 3.0, 0.0).view(1, 2, 3) / 5**0.5
    torch.testing.assert_close(normalize(x, valid), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(normalize(x, valid, by="variance"), expected / 5**0.5, rtol=1e-7, atol=1e-7)
    # negative control: with everything valid the two outliers set the scale
    assert normalize(x, torch.ones_like(valid)).abs()[valid].max() < 0.2


def test_normalization_is_of_each_task_alone():
    """Task 2 = 10 * task 1 + 7 comes out the same; jointly normalized they would differ."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 5, generator=generator, dtype=torch.float64)
    valid = torch.ones(2, 4, 5, dtype=torch.bool)
    both = normalize(torch.cat([x, 10 * x + 7]), valid)
    torch.testing.assert_close(both[0], both[1], rtol=1e-6, atol=1e-6)
    assert both.mean((1, 2)).abs().max() < 1e-12
    torch.testing.assert_close(both.std((1, 2), correction=0), real(1.0, 1.0), rtol=1e-6, atol=0)


def test_normalization_of_what_has_no_spread_or_no_step_is_zero():
    x = torch.full((2, 2, 3), 4.0)
    valid = torch.ones(2, 2, 3, dtype=torch.bool)
    valid[1] = False
    assert (normalize(x, valid) == 0).all()
