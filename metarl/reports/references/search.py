"""GridNavi exactly: the Bayes-optimal search for a goal that nobody sees, by dynamic programming.

Until the goal is found, every reward is the same and nothing else is learned than which cells it is not in: whoever
searches optimally walks a fixed way. A walk is worth the sum, over the goals, of what finding each at its time is
worth; once found, the shortest way and staying are optimal. So what is planned is the best walk, whose state is the
cell and the set of goals ruled out; sets that cannot beat a walk that is known are dropped by a bound.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

REWARD, COST = 1.0, -0.1  # of a step in the goal, of another
MOST_STATES = 50_000  # of a step
FEW_STATES = 2_000  # of the first, narrow pass
MOST_GOALS = 50  # a set of them is a whole number of 64 bits, with the cell
Ints = NDArray[np.int64]


class Grid(NamedTuple):
    """What of GridNavi (:mod:`metarl.envs.small.grid_navi`) a search depends on."""

    cells: int
    """Of a row."""
    horizon: int
    goals: tuple[tuple[int, int], ...]
    """Columns and rows, equally likely."""


def grid_of(task: Any) -> Grid:
    """The grid of a task distribution that has ``cells`` and ``goals()``."""
    return Grid(task.cells, task.horizon, tuple((int(x), int(y)) for x, y in task.goals().tolist()))


class Search(NamedTuple):
    """The best walk of trials of so many episodes."""

    walk: Ints
    """[episode, step, 2]: column and row after each step, as long as the goal is not found."""
    found: Ints
    """[goal, 2]: in which episode and step, both from 0, the walk meets each goal; (episodes, 0): never."""
    returns: NDArray[np.float64]
    """[episode]: expected return of each episode, on average over the goals."""


class Layer(NamedTuple):
    """What walks of equally many steps can have come to, the best of each."""

    cell: Ints
    ruled_out: Ints
    """Goals that the walk has met, as bits."""
    worth: Ints
    """Steps in a goal that meeting them at their times is worth, summed over goals."""
    parent: Ints
    """Number of the state one step earlier."""


@cache
def optimal_search(grid: Grid, episodes: int) -> Search | None:
    """The best walk, by backward reading of a forward search; None where that would take more than seconds.

    Two passes: one that keeps the most promising states finds a good walk, and one that drops only states that cannot
    beat it proves the best.
    """
    if len(grid.goals) > MOST_GOALS:
        return None
    good = _search(grid, episodes, at_least=0, most=FEW_STATES)
    best = good and _search(grid, episodes, at_least=int(good[-1].worth.max()), most=None)
    if not best:
        return None
    walk, state = np.zeros((episodes * grid.horizon, 2), np.int64), int(best[-1].worth.argmax())
    for step, layer in reversed(list(enumerate(best))):
        walk[step] = divmod(layer.cell[state], grid.cells)
        state = layer.parent[state]
    return _outcome(grid, walk.reshape(episodes, grid.horizon, 2), met=len(best))


def _search(grid: Grid, episodes: int, *, at_least: int, most: int | None) -> list[Layer] | None:
    """The layers up to the first one with a walk that nothing can beat; None where a layer has too many states.

    Args:
        at_least: walks that cannot be worth so much are dropped.
        most: states of a layer that are kept, the most promising ones; None: all.
    """
    goals, horizon = np.array(grid.goals), grid.horizon
    later = np.maximum(horizon + 1 - goals.sum(1), 0)  # steps in a goal that is known, of an episode
    bit, stays = np.zeros((2, grid.cells**2), np.int64)
    bit[goals @ (grid.cells, 1)], stays[goals @ (grid.cells, 1)] = 1 << np.arange(len(goals)), later
    layers, finished = [Layer(*np.zeros((4, 1), np.int64))], 0
    for step in range(episodes * horizon):
        before, (episode, clock) = layers[-1], divmod(step, horizon)
        cell = np.zeros_like(before.cell) if clock == 0 else before.cell
        cell, parent = neighbors(cell, grid.cells).ravel(), np.tile(np.arange(len(cell)), 4)
        left = episodes - 1 - episode
        new = np.where(before.ruled_out[parent] & bit[cell], 0, bit[cell])
        worth = before.worth[parent] + np.where(new > 0, horizon - clock + left * stays[cell], 0)
        layer = best_of_each(Layer(cell, before.ruled_out[parent] | new, worth, parent))
        open_ = ~layer.ruled_out[:, None] >> np.arange(len(goals)) & 1
        count = np.minimum(
            open_.sum(1), horizon - 1 - clock
        )  # at most one more at each step; the rest at once later on
        bound = layer.worth + left * (open_ @ later) + count * (horizon - 1 - clock) - count * (count - 1) // 2
        finished = max(finished, int(layer.worth.max()))
        keep = np.flatnonzero(bound >= max(at_least, finished))
        if most is not None and len(keep) > most:
            keep = keep[np.argsort(-bound[keep], kind="stable")[:most]]
        if len(keep) > MOST_STATES:
            return None
        layers.append(Layer(*(x[keep] for x in layer)))
        if bound[keep].max() == layers[-1].worth.max():
            break
    return layers[1:]


def neighbors(cell: Ints, cells: int) -> Ints:
    """[4, state]: the cells beside each; off the grid itself."""
    column, row = cell // cells, cell % cells
    moved = [(column, row + 1), (column + 1, row), (column, row - 1), (column - 1, row)]
    return np.stack([np.clip(x, 0, cells - 1) * cells + np.clip(y, 0, cells - 1) for x, y in moved])


def best_of_each(layer: Layer) -> Layer:
    """The states of a layer, each once, with its highest worth."""
    order = np.lexsort((-layer.worth, layer.ruled_out, layer.cell))
    cell, ruled_out = layer.cell[order], layer.ruled_out[order]
    first = np.r_[True, (np.diff(cell) != 0) | (np.diff(ruled_out) != 0)]
    return Layer(*(x[order[first]] for x in layer))


def _outcome(grid: Grid, walk: Ints, met: int) -> Search:
    """When the walk meets each goal, and what it returns; steps after the first ``met`` are not looked at."""
    goals, (episodes, horizon, _) = np.array(grid.goals), walk.shape
    there = (walk.reshape(-1, 2)[None, :met] == goals[:, None]).all(2)
    when = np.where(there.any(1), there.argmax(1), episodes * horizon)
    found = np.stack(divmod(when, horizon), axis=1)
    episode, shortest = np.arange(episodes), goals.sum(1) - 1
    first = np.where(
        episode == found[:, :1], found[:, 1:], np.where(episode > found[:, :1], shortest[:, None], horizon)
    )
    in_goal = np.maximum(horizon - first, 0)
    return Search(walk, found, (REWARD * in_goal + COST * (horizon - in_goal)).mean(0))


def best_with_knowledge(grid: Grid, goal: NDArray[np.float64], episodes: int) -> NDArray[np.float64]:
    """[goal]: the return of a trial for who knows the goal [goal, 2]."""
    in_goal = np.maximum(grid.horizon + 1 - goal.sum(1), 0)
    return episodes * (REWARD * in_goal + COST * (grid.horizon - in_goal))
