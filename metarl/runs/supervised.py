"""What a run of supervised tasks is: an experiment without worlds."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from metarl.envs.fields import BadField, require
from metarl.fewshot import LEARNERS, FewShotTasks
from metarl.fewshot.episodes import Unset
from metarl.runs.experiment import Experiment, LearnerT, TaskT


@dataclass(frozen=True)
class FewShotExperiment(Experiment[TaskT, LearnerT]):
    """Nothing acts: what an experiment says of worlds cannot be set, and the count of its steps is one of examples."""

    num_envs: Unset = field(default=1, init=False)
    episodes: Unset = field(default=1, init=False)
    physics: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = field(default="auto", init=False)
    num_tasks: int = 16
    """Tasks in a meta-batch."""
    updates: int = 100
    """Meta-updates in an iteration, whose metrics are their means."""
    iterations: int = 20
    """Iterations, of so many meta-updates each."""
    eval_tasks: int = 100
    """Held-out tasks in such a test."""
    validation_tasks: int = 100
    """Validation tasks in such a test; what makes a checkpoint the best is accuracy, or the error of a regression."""

    def __post_init__(self) -> None:
        if not isinstance(self.task, FewShotTasks):
            raise BadField(f"task is {self.task.name!r}: it has worlds and no examples, use an Experiment")
        if type(self.learner) not in LEARNERS.values():
            known = ", ".join(LEARNERS)
            raise BadField(f"learner is a {type(self.learner).__name__}: tasks of examples need one of {known}")
        super().__post_init__()
        require(self, "updates", at_least=1)
