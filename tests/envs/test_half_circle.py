"""The sparse half circle by hand arithmetic, and PEARL's own goals."""

import math

import numpy as np
import pytest
import torch

from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.envs.small.half_circle import HalfCircle
from metarl.evaluate import held_out_tasks

NORTH = torch.tensor([[0.0, 1.0]])


def test_the_sparse_reward_is_one_minus_the_distance_within_a_fifth_of_the_goal():
    """Steps of .1 to the goal at (0, 1): after 7 it is .3 away, unpaid; a step of .15 is clipped to .1, to .2 away."""
    env = find_preset("half_circle", "pearl").make(1, 1, seed=0)
    env.set_tasks(NORTH)
    env.reset()
    paid = [env.step(torch.tensor([[[0.0, a]]])) for a in (1.0,) * 7 + (1.5, 0.5, 0.5, 0.5)]
    assert [step.reward.item() for step in paid[:7]] == [0.0] * 7
    assert [round(step.reward.item(), 5) for step in paid[8:]] == [0.85, 0.9, 0.95]
    assert [step.success.item() for step in paid[:7]] == [False] * 7
    assert all(step.success.item() for step in paid[8:])
    assert not any(step.terminated.item() for step in paid)


def test_the_dense_reward_is_minus_the_distance():
    env = find_preset("half_circle", "pearl_dense").make(1, 1, seed=0)
    env.set_tasks(NORTH)
    env.reset()
    step = env.step(torch.tensor([[[1.0, 1.0]]]))
    assert step.reward.item() == pytest.approx(-math.hypot(0.1, 0.9))
    assert step.next_obs[0, 0].tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(("preset", "horizon"), [("pearl", 20), ("varibad", 100)])
def test_an_episode_is_truncated_at_its_horizon_and_begins_anew_at_the_origin(preset: str, horizon: int):
    env = find_preset("half_circle", preset).make(1, 2, seed=0)
    env.set_tasks(NORTH)
    env.reset()
    steps = [env.step(torch.ones(1, 2, 2)) for _ in range(horizon)]
    assert [step.truncated.all().item() for step in steps] == [False] * (horizon - 1) + [True]
    assert steps[-1].obs.eq(0).all()


def test_pearls_goals_are_those_of_its_code():
    """oyster: seed 1337, 100 goals at even angles, shuffled; the last 20 are for tests."""
    angles = np.linspace(0, np.pi, num=100)
    goals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.random.RandomState(1337).shuffle(goals)
    task = find_preset("half_circle", "pearl")
    np.testing.assert_allclose(held_out_tasks(task, 20), goals[80:], atol=1e-7)
    drawn = task.sample(4000, torch.Generator().manual_seed(0))
    apart = torch.cdist(drawn.double(), torch.from_numpy(goals))
    assert sorted(set(apart.argmin(1).tolist())) == list(range(80)), "training draws a test goal, or not all others"
    assert apart.amin(1).max() < 1e-6


def test_varibads_goals_are_uniform_on_the_half_circle():
    drawn = find_preset("half_circle", "varibad").sample(20_000, torch.Generator().manual_seed(0)).double()
    angle = torch.atan2(drawn[:, 1], drawn[:, 0])
    assert drawn.norm(dim=1).sub(1).abs().max() < 1e-6
    assert 0 <= angle.min() < 0.001
    assert angle.max() > math.pi - 0.001
    share = torch.histc(angle, 10, 0, math.pi) / 20_000
    assert (share - 0.1).abs().max() < 4 * math.sqrt(0.09 / 20_000)


def test_too_few_goals_are_refused():
    with pytest.raises(BadField, match="num_goals is 3"):
        HalfCircle(num_goals=3)
