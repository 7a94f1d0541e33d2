"""Supervised few-shot tasks: a few labelled examples of a task to adapt to (support), others to be judged by (query).

Axes as everywhere: ``task`` first, then ``example``. Labels are what a network puts out: targets [out] of a regression,
one-hot vectors [way] of a classification, whose ways are numbered anew in every episode. Examples of a classification
lie side by side by label: the first of every way, then the second of every way ...
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from metarl.envs.api import EnvSpec, TaskEnv
from metarl.envs.fields import BadField, require
from metarl.envs.registry import TaskDistribution

Unset = Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress]
"""What has no meaning where nothing acts: neither an argument, nor an option, nor recorded."""


class Examples(NamedTuple):
    """Labelled examples of a meta-batch; inside ``vmap`` the same without its ``task`` axis."""

    x: Float[Tensor, "..."]
    """Inputs [task example *shape]."""
    y: Float[Tensor, "*task example out"]
    """Targets, or one-hot labels."""


@dataclass(frozen=True)
class ExampleSpec(EnvSpec):
    """What a learner must know of supervised tasks; of an :class:`EnvSpec`, ``action_dim`` numbers are predicted."""

    shape: tuple[int, ...] = ()
    """Of an input: (1,), or channels, height and width."""
    num_classes: int = 0
    """Classes to train on, over all tasks; 0 of a regression, and of a data set that is not here."""


class Episodes(NamedTuple):
    """An episode of each task of a meta-batch."""

    support: Examples
    query: Examples
    classes: Int[Tensor, "task way"]
    """Which class each label stands for; no ways of a regression."""
    spec: ExampleSpec


@dataclass(frozen=True)
class FewShotTasks(TaskDistribution):
    """A distribution over supervised tasks: it has examples, and no worlds to act in."""

    horizon: Unset = field(default=1, init=False)
    shots: int = 10
    """Examples to adapt to; of a classification, of each class."""
    queries: int = 10
    """Other examples, by which the adapted network is judged; of a classification, of each class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "shots", "queries", at_least=1)

    @property
    @abstractmethod
    def spec(self) -> ExampleSpec:
        """Dimensions of inputs and labels."""

    @property
    @abstractmethod
    def task_size(self) -> int:
        """Numbers that define a task."""

    @abstractmethod
    def draw(self, task: Float[Tensor, "task ..."], generator: torch.Generator) -> Episodes:
        """An episode of each task, on the generator's device."""

    def held_out(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task ..."]:
        """Tasks to test on; by default of the distribution that training draws from."""
        return self.sample(num_tasks, generator)

    def require_ready(self) -> None:
        """Refuses a data set that is not here.

        Raises:
            BadField: it says what is missing, and where.
        """

    def make(self, num_tasks: int, num_envs: int, **options: Any) -> TaskEnv:
        """Refuses: an episode is drawn, not played."""
        raise BadField(f"task is {self.name!r}: it has examples and no worlds, use metarl train, or its draw()")


def example_loss(
    prediction: Float[Tensor, "*task example out"], y: Float[Tensor, "*task example out"], spec: ExampleSpec
) -> Float[Tensor, "*task"]:
    """Mean squared error, or mean cross-entropy of logits [nats], over the examples of each task."""
    if not spec.discrete:
        return (prediction - y).square().mean((-2, -1))
    return -(prediction.log_softmax(-1) * y).sum(-1).mean(-1)


def accuracy(
    prediction: Float[Tensor, "*task example out"], y: Float[Tensor, "*task example out"]
) -> Float[Tensor, "*task"]:
    """Share of the examples whose largest logit is that of their label."""
    return (prediction.argmax(-1) == y.argmax(-1)).to(y.dtype).mean(-1)


def joined(first: Examples, second: Examples) -> Examples:
    """The examples of both, [task example ...]."""
    return Examples(torch.cat([first.x, second.x], dim=1), torch.cat([first.y, second.y], dim=1))


def class_of_example(examples: Examples, classes: Int[Tensor, "task way"]) -> Int[Tensor, "task example"]:
    """Which class over all tasks each example is of."""
    return classes.gather(1, examples.y.argmax(-1))


def class_loss(logits: Float[Tensor, "*task example cls"], target: Int[Tensor, "*task example"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over all examples [nats]."""
    return cross_entropy(logits.flatten(0, -2), target.flatten())
