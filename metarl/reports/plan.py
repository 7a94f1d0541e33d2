"""A test with every default filled in."""

from typing import NamedTuple


class Plan(NamedTuple):
    """A test, every default filled in."""

    tasks: int
    episodes: int
    """Of each task at each step; trials of each task, for a learner that remembers."""
    scales: tuple[float, ...]
    """Step size of each inner step, as a multiple of the learner's; empty for a learner that remembers."""
    trial: int
    """Episodes of a trial."""
    min_steps: int
    """Steps of experience that an inner step sees at least."""
    adaptation_episodes: int
    """Episodes of each task that an inner step sees; those of a trial before its last."""
    seed: int

    @property
    def steps(self) -> list[str]:
        """What the returns are listed by."""
        if not self.scales:
            return [f"episode {k + 1}" for k in range(self.trial)]
        return ["before", *(f"{k + 1} step{'s' if k else ''}" for k in range(len(self.scales)))]
