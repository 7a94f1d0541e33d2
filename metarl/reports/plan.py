"""A test with every default filled in."""

from typing import NamedTuple

from metarl.types import Stage, inner_scales


class Plan(NamedTuple):
    """A test, every default filled in."""

    tasks: int
    episodes: int
    """Of each task at each step; trials of each task, for a learner that remembers."""
    stages: list[Stage]
    """How it adapts."""
    min_steps: int
    """Steps of experience that an inner step sees at least."""
    adaptation_episodes: int
    """Episodes of each task that an inner step sees; those of a trial before its last."""
    seed: int

    @property
    def steps(self) -> list[str]:
        """What the returns are listed by."""
        return [stage.label for stage in self.stages]

    @property
    def scales(self) -> list[float]:
        """Step size of each inner step, as a multiple of the learner's; none for a learner that remembers."""
        return inner_scales(self.stages)

    @property
    def trial(self) -> int:
        """Consecutive episodes of a world."""
        return self.stages[-1].episodes
