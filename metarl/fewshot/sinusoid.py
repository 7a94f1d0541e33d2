"""Regression of a sine wave, the first experiment of the MAML paper (Finn, Abbeel & Levine 2017, section 5.1)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.episodes import Episodes, Examples, ExampleSpec, FewShotTasks


@dataclass(frozen=True)
class Sinusoid(FewShotTasks):
    """y = A sin(x - phase). Task parameter: amplitude A, uniform in [0.1, 5], and phase, uniform in [0, pi] [rad]."""

    name: ClassVar[str] = "sinusoid"
    parameter_names: ClassVar[tuple[str, ...]] = ("amplitude", "phase")

    @property
    def spec(self) -> ExampleSpec:
        return ExampleSpec(obs_dim=1, action_dim=1, horizon=1, terminates=False, has_success=False, shape=(1,))

    @property
    def task_size(self) -> int:
        return 2

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        amplitude, phase = torch.rand(2, num_tasks, generator=generator, device=generator.device)
        return torch.stack([0.1 + 4.9 * amplitude, math.pi * phase], dim=1)

    def draw(self, task: Float[Tensor, "task 2"], generator: torch.Generator) -> Episodes:
        """Inputs are uniform in [-5, 5]."""
        task, total = task.to(generator.device), self.shots + self.queries
        x = 10 * torch.rand(len(task), total, 1, generator=generator, device=generator.device) - 5
        amplitude, phase = task[:, None, :1], task[:, None, 1:]
        examples = Examples(x, amplitude * torch.sin(x - phase))
        support, query = (
            Examples(*(part.split([self.shots, self.queries], 1)[k] for part in examples)) for k in (0, 1)
        )
        return Episodes(support, query, torch.zeros(len(task), 0, dtype=torch.int64, device=x.device), self.spec)


Sinusoid.presets = {"k10": Sinusoid(), "k5": Sinusoid(shots=5, queries=5)}
