"""Meta-World's own goals: the random vectors that its benchmarks draw, without building its environments.

``metaworld.ML10(seed)`` and its kin reset each environment 50 times and keep the vector of each reset. A reset draws
twice, and again where a vector is not accepted; numpy's legacy generator makes the numbers.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.metaworld.sawyer import SAWYER, SawyerTask

GOALS = 50  # of each environment
DRAWS = 2  # of each reset; the last one counts

Vectors = NDArray[np.float64]


@cache
def draw_goals(names: tuple[str, ...], seed: int) -> dict[str, Vectors]:
    """50 random vectors [goal, n] of each environment, as a benchmark of these environments in this order draws."""
    draws = np.random.RandomState(seed)
    return {name: np.stack([_draw(SAWYER[name], draws) for _ in range(GOALS)]) for name in names}


def _draw(task: SawyerTask, draws: np.random.RandomState) -> Vectors:
    for _ in range(DRAWS):
        while not task.accepts(vec := draws.uniform(task.vec_low, task.vec_high)):
            pass
    return vec


def first_of_each(environments: list[Tensor], count: int) -> Tensor:
    """``count`` goals, equally many of each environment up to one, from its first on."""
    each, rest = divmod(count, len(environments))
    return torch.cat([goals[: each + (rank < rest)] for rank, goals in enumerate(environments)])


def choose(goals: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` goals in random order, none twice before each was taken once."""
    rounds = -(-count // len(goals))
    order = [torch.randperm(len(goals), generator=generator, device=generator.device) for _ in range(rounds)]
    return goals[torch.cat([*order, torch.zeros(0, dtype=torch.int64)]).cpu()[:count]]
