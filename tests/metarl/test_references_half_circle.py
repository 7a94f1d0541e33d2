"""What can be earned on the half circle, against arithmetic."""

import math

import pytest
import torch

from metarl.envs.registry import find_preset
from metarl.envs.small.half_circle import HalfCircle
from metarl.reports.references import bounds
from metarl.reports.references.half_circle import on_circle, optimal_return, path, search_return, searched

PEARL, VARIBAD = HalfCircle.presets["pearl"], HalfCircle.presets["varibad"]


def test_who_knows_the_goal_by_hand():
    """North in steps of .1: paid .8, .9 and then 1 from the eighth step on. At 45 degrees both axes move at once: six
    steps to (.6, .6), a distance of 1 - .6 sqrt 2, then the goal itself."""
    north, middle = optimal_return(PEARL, on_circle(torch.tensor([math.pi / 2, math.pi / 4]))).tolist()
    assert north == pytest.approx(0.8 + 0.9 + 11)
    assert middle == pytest.approx(
        2 * 0 + (0.6 * math.sqrt(2)) * (0.6 * math.sqrt(2) >= 0.8) + math.hypot(0.7, 0.7) + 13
    )
    assert bounds(PEARL, on_circle(torch.tensor([math.pi / 2])), 3)["knows the task"] == pytest.approx(3 * 12.7)


def test_no_random_walk_beats_who_knows_the_goal():
    task = find_preset("half_circle", "varibad", horizon=15)
    env = task.make(20, 50, seed=0)
    goals = task.sample(20, torch.Generator().manual_seed(0))
    env.set_tasks(goals)
    at, earned = env.reset(), torch.zeros(20, 50)
    for _ in range(15):  # straight to the goal, with noise
        noise = 0.3 * torch.randn(20, 50, 2, generator=torch.Generator().manual_seed(1))
        step = env.step((goals.unsqueeze(1) - at) / task.max_step + noise)
        at, earned = step.next_obs, earned + step.reward
    limit = optimal_return(task, goals)
    assert (earned.double() <= limit.unsqueeze(1) + 1e-4).all()
    assert (earned.double().mean(1) > 0.8 * limit).all(), "the limit is far above what walking there earns"


def test_a_path_moves_as_the_point_can_and_goes_along_the_circle():
    way = path(VARIBAD, 0.0, 1, 0.95)
    moved = torch.diff(torch.cat([torch.zeros(1, 2), way]), dim=0)
    assert moved.abs().max() <= 0.1 + 1e-9
    assert way[10:].norm(dim=1).sub(0.95).abs().max() < 1e-3
    assert way[-1].tolist() == pytest.approx([-0.95, 0.0], abs=1e-6)
    goals = on_circle(torch.linspace(0, math.pi, 50, dtype=torch.float64))
    found, earned = searched(VARIBAD, way, goals)
    assert found.all(), "a hundred steps pass every goal"
    assert (earned[1:] < earned[:-1] + 1.5).all()
    assert earned[0] > earned[-1] + 20


def test_a_search_earns_less_than_knowing_and_finds_more_from_episode_to_episode():
    """VariBAD's hundred steps see the whole arc in one episode; PEARL's twenty do not."""
    goals = on_circle(torch.linspace(0, math.pi, 91, dtype=torch.float64))
    known = optimal_return(PEARL, goals).mean().item()
    one, two = search_return(PEARL, 1), search_return(PEARL, 2)
    assert 0.2 * known < one < 0.6 * known
    assert one < two - one < known
    long = search_return(VARIBAD, 1)
    assert 0.7 < long / optimal_return(VARIBAD, goals).mean().item() < 0.95
