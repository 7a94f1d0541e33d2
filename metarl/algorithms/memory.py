"""What learners have in common that adapt through memory, within a trial of several episodes."""

from typing import Any

import torch

from metarl.types import Actor, Previous, Stage, TrajectoryBatch, trial_stages


class MemoryLearner:
    """A learner without inner steps: to act is to adapt."""

    @property
    def adapt_steps(self) -> int:
        return 0

    def stages(self, trial: int, *, steps: int | None = None, later: float = 1.0) -> list[Stage]:
        return trial_stages(trial)

    def actor(self, state: Any, num_tasks: int) -> Actor:
        raise NotImplementedError

    def beginning(self, actor: Any, previous: Previous) -> tuple[Any, Previous]:
        """At the first step of a trial the empty memory, and what is fed then; later what is given. An exported policy
        begins with it."""
        return actor, previous

    def explorer(self, state: Any, num_tasks: int, generator: torch.Generator) -> Actor:
        return self.actor(state, num_tasks)

    def adapt(self, state: Any, actor: Actor, batch: TrajectoryBatch, *, scale: float = 1.0) -> Actor:
        raise NotImplementedError(f"{type(self).__name__} adapts as it acts: it has no inner step")
