"""GridNavi's exact search against enumeration, and against the environment."""

import itertools

import numpy as np
import pytest
import torch
from reference_checks import seeded, trials

from metarl.envs.small.grid_navi import COST, MOVES, REWARD, GridNavi
from metarl.reports.references import bounds, references
from metarl.reports.references import grid_navi as agents
from metarl.reports.references import search as searching
from metarl.reports.references.search import Grid, best_with_knowledge, grid_of, optimal_search
from metarl.rollout import rollout

pytestmark = pytest.mark.usefixtures("one_thread")


def value_by_enumeration(task: GridNavi, episodes: int) -> float:
    """The best of all sequences of moves, each walked for every goal by itself until it is found."""
    goals = [(int(x), int(y)) for x, y in task.goals().tolist()]
    moves = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    best = -np.inf
    for walk in itertools.product(moves, repeat=episodes * task.horizon):
        total = 0.0
        for goal in goals:
            known = False
            for episode in range(episodes):
                x = y = 0
                for step in range(task.horizon):
                    if known and (x, y) != goal:  # straight on, as the first dimension that is off
                        x, y = (x + np.sign(goal[0] - x), y) if x != goal[0] else (x, y + np.sign(goal[1] - y))
                    elif not known:
                        dx, dy = walk[episode * task.horizon + step]
                        x, y = min(max(x + dx, 0), task.cells - 1), min(max(y + dy, 0), task.cells - 1)
                    known = known or (x, y) == goal
                    total += 1.0 if (x, y) == goal else -0.1
        best = max(best, total / len(goals))
    return best


@pytest.mark.parametrize(("horizon", "episodes"), [(3, 1), (5, 1), (2, 2), (3, 2), (1, 4)])
def test_the_best_walk_is_the_best_of_all(horizon: int, episodes: int):
    task = GridNavi(cells=3, horizon=horizon)
    search = optimal_search(grid_of(task), episodes)
    assert search is not None
    assert search.returns.sum() == pytest.approx(value_by_enumeration(task, episodes))


def test_the_paper_s_grid_by_hand():
    """21 goals. The first step is to none, then at best one is met in each of 14 steps: the one met in step t pays in
    16 - t steps, 105 in all, so that an episode returns -1.5 + 1.1 * 105 / 21 = 4. The other seven can lie on one
    shortest way to the far corner, so that from the second episode on nobody who knows the goal does better.
    """
    search = optimal_search(grid_of(GridNavi()), 4)
    assert search is not None
    known = best_with_knowledge(grid_of(GridNavi()), GridNavi().goals().double().numpy(), 1).mean()
    assert search.returns.tolist() == pytest.approx([4.0, known, known, known])
    assert optimal_search(grid_of(GridNavi()), 1).returns.tolist() == pytest.approx([4.0])  # type: ignore[union-attr]
    assert (search.found[:, 0] < 2).all()
    assert sorted(step for episode, step in search.found.tolist() if episode == 0) == list(range(1, 15))


def test_the_agent_earns_the_value_and_none_of_the_others_more():
    """All tasks once: the search is deterministic, so that the mean is the value itself."""
    task = GridNavi()
    goals = task.goals()
    limits = bounds(task, goals, 4)
    scores = {name: trials(agent, task, 4, goals) for name, agent in references(task, 4).items()}
    assert scores["Bayes-optimal"].mean().item() == pytest.approx(limits["Bayes-optimal"], abs=1e-4)
    assert limits["Bayes-optimal"] == pytest.approx(37.2142857)
    assert limits["knows the task"] == pytest.approx(4 * 11.0714286)
    assert scores["random"].mean() < scores["posterior sampling"].mean() < limits["Bayes-optimal"] - 5


def test_what_is_known_is_what_is_consistent_with_all_that_was_seen():
    """The exact posterior after every step of random trials, by going through each goal's own rewards."""
    task = GridNavi(horizon=6)
    env = task.make(4, 3, seed=0)
    env.set_tasks(task.sample(4, seeded()))
    agent = agents.PosteriorSampling(grid_of(task))
    batch, known = rollout(env, agent.act, agent.actor(None, 4), 3, seeded(1), trials=True)
    goals = task.goals()
    there = (batch.next_obs[:, :, :-1, None] == goals).all(-1)  # the last step was not seen yet
    predicted = torch.where(there, REWARD, COST)
    expected = (predicted == batch.reward[:, :, :-1, None]).all(2)
    assert known.possible.equal(expected)
    assert (known.possible.sum(-1) >= 1).all()
    assert agents.MOVES.equal(MOVES)
    assert (searching.REWARD, searching.COST) == (REWARD, COST)


def test_large_grids_have_no_exact_search():
    assert optimal_search(grid_of(GridNavi(cells=8)), 2) is None
    assert optimal_search(Grid(3, 4, ((2, 2),)), 2) is not None
    assert references(GridNavi(cells=8), 2).keys() == {"random", "posterior sampling"}
    assert bounds(GridNavi(cells=8), GridNavi(cells=8).goals(), 2).keys() == {"knows the task"}
