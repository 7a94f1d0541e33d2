"""What acts after some adaptation: in one world of one task, or in a batch of worlds of several."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.envs.api import Step, TaskEnv
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.evaluate import MetaTest, measure
from metarl.rollout import nothing_before
from metarl.seeds import stream
from metarl.separate_tests import Adapting, separate_tests
from metarl.types import Actor, MetaLearner, Previous, remembers


@dataclass(frozen=True)
class Learned:
    """A learner and what it has learned."""

    learner: MetaLearner
    """The algorithm, with its hyperparameters."""
    state: Any
    """Its meta-parameters; ``learner.init`` makes those before training."""
    task: TaskDistribution
    """What it was trained on."""
    device: str = "cpu"
    """Where it acts and adapts."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from, for a reader of what is exported: run, seed, iteration, commit; a JSON object."""


class Adapted:
    """What acts in a batch of worlds, after some adaptation."""

    def __init__(self, agent: Learned, stage: Adapting, generator: torch.Generator, *, num_tasks: int = 1) -> None:
        self._agent, self._learner, self._stage, self._generator = agent, agent.learner, stage, generator
        self._action_dim, self._num_tasks = agent.task.spec.action_dim, num_tasks
        self._action: Tensor | None = None
        self.actor: Actor = stage.actor
        """Adapted parameters [task ...], or parameters and memory."""
        self.previous: Previous | None = stage.before
        """What memory is fed next, besides the observation; None before the first step."""
        self.dist: Any = None
        """The distribution of the last action."""

    def act(self, obs: Float[Tensor, "task env obs"], *, greedy: bool = False) -> Float[Tensor, "task env act"]:
        """Samples an action of every world, or with ``greedy`` takes the most likely one; one-hot where discrete."""
        previous = nothing_before(obs, self._action_dim) if self.previous is None else self.previous
        action, self.dist, self.actor = self._learner.act(self.actor, obs, previous, self._generator)
        self._action = self.dist.mode() if greedy else action
        return self._action

    def observe(self, step: Step, action: Float[Tensor, "task env act"] | None = None) -> None:
        """Tells what came of the last action, or of another one that was taken in its place: memory is fed it."""
        taken = self._action if action is None else action
        if taken is None:
            raise ValueError("nothing has acted yet: call act() before observe()")
        self.previous = Previous(taken, step.reward, step.terminated, step.truncated, step.next_obs)

    def test(self, env: TaskEnv, *, greedy: bool = True, seed: int = 0) -> MetaTest:
        """One episode in every world of ``env``, which has the tasks that it adapted to (and, for an agent that
        remembers, as many worlds), of which nothing is remembered: leaves [task step=1 episode=env]."""
        draws = stream(seed, "separate test actions", device=str(env.device))
        (batch,) = separate_tests(self._learner, iter([self._stage]), env, draws, greedy=greedy)
        return measure(batch, 1, env.spec.horizon)

    def export(self, path: Path | str, *, task: int = 0, adaptation: Mapping[str, Any] | None = None) -> Path:
        """Writes the policy of one task as it is now, to act without torch, as :meth:`metarl.Trial.export` does.

        Args:
            task: which one of the tasks that it adapted to.
            adaptation: what it adapted to, for a reader of the file.

        Raises:
            BadField: there is no such task; or memory of several worlds, of which a file holds one.
        """
        from metarl.deploy.export import export  # torch.export takes a second to import

        if not 0 <= task < self._num_tasks:
            raise BadField(f"task is {task}: use 0 to {self._num_tasks - 1}")
        actor, previous = self.actor, self.previous
        if not remembers(self._learner):
            actor = tree_map(lambda x: x[task : task + 1].clone(), actor)
            previous = None
        elif self._num_tasks > 1 or (previous is not None and previous.reward.numel() > 1):
            raise BadField(
                "env has several worlds, each remembers another trial: export a trial(), or adapt in one world"
            )
        return export(self._agent, actor, previous, Path(path), adaptation or {})
