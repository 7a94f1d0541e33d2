"""Task distributions p(T), by name: definitions as dataclasses, and the presets that published work used."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal, Signals, TaskEnv
from metarl.envs.fields import BadField, require, require_numbers

SHORT = 5  # numbers; a task parameter of more is not written out
TASKS: dict[str, type["TaskDistribution"]] = {}
"""Every task distribution by name; defining a subclass with ``name`` registers it."""


@dataclass(frozen=True)
class TaskDistribution(ABC):
    """A distribution over tasks p(T), with the definition of one task."""

    name: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, "TaskDistribution"]] = {}
    """Definitions by provenance, e.g. ``maml2017``."""
    parameter_names: ClassVar[tuple[str, ...]] = ()
    """What each number of a task parameter is called, for ``metarl probe``; counted where not all are named."""

    horizon: int = 100
    """Steps of an episode."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            if (other := TASKS.get(cls.name, cls)).__name__ != cls.__name__:
                raise BadField(f"name is {cls.name!r}: {other.__name__} has it, give {cls.__name__} another")
            TASKS[cls.name] = cls
            if "presets" not in vars(cls):
                cls.presets = {}  # those of the class it is made of are other tasks

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "horizon", at_least=1)

    @property
    @abstractmethod
    def spec(self) -> EnvSpec:
        """Dimensions of the environment."""

    @property
    def num_test_tasks(self) -> int | None:
        """How many held-out tasks there are; None: as many as are asked for."""
        return None

    @abstractmethod
    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task ..."]:
        """Draws task parameters; the number of worlds has no influence on them."""

    def published_tasks(self, num_tasks: int) -> Float[Tensor, "task ..."] | None:
        """The very tasks a paper evaluated on, or None where they are not known."""
        return None

    def validation_tasks(self, num_tasks: int) -> Float[Tensor, "task ..."] | None:
        """Tasks kept apart from training and test to choose a checkpoint by; None: draws of a seed of their own.

        Raises BadField where there are not so many.
        """
        return None

    def labels(self, task: Float[Tensor, "task ..."]) -> list[str]:
        """The kind of each task, where a benchmark has several kinds: results are also listed by it."""
        return []

    def in_words(self, task: Float[Tensor, "..."]) -> str:
        """What one task asks for, for a reader: by default its kind, else its numbers where they are few."""
        kind = self.labels(task[None])
        numbers = task.flatten().tolist()
        return kind[0] if kind else ", ".join(f"{value:.3g}" for value in numbers) if len(numbers) <= SHORT else ""

    def signals(self) -> Signals:
        """What each number of an observation and an action is called and measured in; by default only counted."""
        spec = self.spec
        observation = tuple(Signal(f"observation {index}") for index in range(spec.obs_dim))
        return Signals(observation, tuple(Signal(f"action {index}") for index in range(spec.action_dim)))

    @abstractmethod
    def make(
        self,
        num_tasks: int,
        num_envs: int,
        *,
        seed: int,
        device: str = "cpu",
        physics: str = "auto",
        num_threads: int = 0,
    ) -> TaskEnv:
        """Builds the batched environment; ``seed`` seeds its resets alone."""


def make(task: str, num_tasks: int, num_envs: int, *, preset: str | None = None, **options: Any) -> TaskEnv:
    """The environment of a task by name: ``make("half_cheetah_dir", 20, 20, preset="v5", seed=0)``.

    Raises:
        ValueError: unknown task or preset, with the names there are.
    """
    return find_preset(task, preset).make(num_tasks, num_envs, **options)


def find_preset(task: str, preset: str | None = None, **fields: Any) -> TaskDistribution:
    """The task distribution called ``task``, in the definition ``preset`` (None: its first, or its defaults).

    Args:
        fields: values of single fields of that definition.

    Raises:
        ValueError: unknown task or preset, with the names there are.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}: use one of {', '.join(sorted(TASKS))}")
    presets = TASKS[task].presets
    if preset is not None and preset not in presets:
        raise ValueError(f"preset is {preset!r}: {task} has {', '.join(presets) or 'none'}")
    if not presets:
        return TASKS[task](**fields)
    return replace(presets[preset if preset is not None else next(iter(presets))], **fields)


def presets_of(task: TaskDistribution) -> list[str]:
    """The names of the presets that define exactly this task."""
    return [name for name, definition in task.presets.items() if definition == task]
