"""Bernoulli bandits (Duan et al. 2016, RL², section 3.1).

Task parameter: the probability that each arm pays 1, uniform in [0, 1] and independent. An episode is one pull; a trial
of n pulls is n episodes. Observation: the constant 1. Action: the one-hot vector of an arm. Reward: 1 or 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, drawn
from metarl.envs.fields import require
from metarl.envs.registry import TaskDistribution
from metarl.envs.worlds import BatchedTasks, Outcome, Worlds


@dataclass(frozen=True)
class Bandit(BatchedTasks):
    """Presets: k5, k10, k50 (the numbers of arms in the paper)."""

    name: ClassVar[str] = "bandit"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    horizon: int = 1
    """Pulls of an episode."""
    arms: int = 5
    """Arms of a bandit, k."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "arms", at_least=2, at_most=10_000)

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            obs_dim=1,
            action_dim=self.arms,
            horizon=self.horizon,
            terminates=False,
            has_success=False,
            discrete=True,
        )

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task arm"]:
        return torch.rand(num_tasks, self.arms, generator=generator, device=generator.device)

    def in_words(self, task: Float[Tensor, " arm"]) -> str:
        return f"the best arm pays with probability {float(task.max()):.2f}"

    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> Worlds:
        return BanditWorlds(self.arms, num_worlds, torch.Generator(device).manual_seed(seed))


class BanditWorlds:
    """:class:`metarl.envs.worlds.Worlds` of bandits, which have no state but the generator of their payoffs."""

    def __init__(self, arms: int, num_worlds: int, generator: torch.Generator) -> None:
        self.probability = torch.zeros(num_worlds, arms, device=generator.device)
        self._generator = generator
        self._nowhere = torch.zeros(num_worlds, dtype=torch.bool, device=generator.device)

    def seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def set_tasks(self, task: Float[Tensor, "world arm"]) -> None:
        self.probability = task

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        pass

    def observe(self) -> Float[Tensor, "world 1"]:
        return torch.ones(len(self.probability), 1, device=self.probability.device)

    def step(self, action: Float[Tensor, "world arm"]) -> Outcome:
        probability = (self.probability * action).sum(1)
        uniform = drawn(torch.rand, (len(action),), self._generator)
        return Outcome((uniform < probability).float(), self._nowhere, self._nowhere, self._nowhere)

    def state_dict(self) -> dict[str, Tensor]:
        return {"probability": self.probability.clone(), "payoffs": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.probability = state["probability"].to(self.probability.device).clone()
        self._generator.set_state(state["payoffs"])


Bandit.presets = {f"k{arms}": Bandit(arms=arms) for arms in (5, 10, 50)}
