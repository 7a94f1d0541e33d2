"""Meta-World's own goals: the random vectors that its benchmarks draw, without building its environments.

``metaworld.ML10(seed)`` and its kin reset each environment 50 times and keep the vector of each reset. A reset draws
twice, and again where a vector is not accepted; numpy's legacy generator makes the numbers.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

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
