"""What a search is: how many trials, how they are compared, and when it is enough."""

from dataclasses import dataclass
from typing import Literal

from metarl.envs.fields import require, require_numbers


@dataclass(frozen=True)
class Settings:
    """Of one search; whoever joins it has the same, but for ``hours`` and ``jobs``."""

    trials: int = 27
    """Settings tried."""
    cohort: int = 9
    """Trials that are compared with each other; the next ones are proposed from what these have shown."""
    rungs: int = 3
    """Lengths at which trials are compared, the last the run's iterations; 1: every trial trains to the end."""
    keep: int = 3
    """One in so many trials goes on to the next rung, which is so many times as long."""
    trial_seeds: int = 1
    """Training runs of each trial, whose mean counts: seed, seed + 1 ..."""
    objective: str = ""
    """Column of progress.csv to maximize; by default meta_train/return_post, of learners that remember
    meta_train/return_trial, on examples validation/score. The held-out tasks of the test are no place to choose
    hyperparameters on."""
    last: int = 5
    """Iterations before a rung that the objective is averaged over."""
    sampler: Literal["tpe", "random"] = "tpe"
    """What proposes settings: a tree-structured Parzen estimator, or chance."""
    max_env_steps: float | None = None
    """No cohort is begun once all runs together took so many environment steps."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "trials", "cohort", "rungs", "trial_seeds", "last", at_least=1)
        require(self, "keep", at_least=2)
        if self.max_env_steps is not None:
            require(self, "max_env_steps", above=0)
