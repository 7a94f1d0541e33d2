"""Random Markov decision processes with few states (Duan et al. 2016, RL², section 3.2).

10 states, 5 actions, episodes of 10 steps from state 0. Task parameter [state, action, state + 1]: the probabilities of
the next state, a draw of Dirichlet(1, ..., 1), and in the last place the mean reward, a draw of N(1, 1). Observation:
the one-hot vector of the state. Action: the one-hot vector of a choice. Reward: N(mean, 1).
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
class TabularMDP(BatchedTasks):
    """Preset: rl2 (Duan et al. 2016, after Osband et al. 2013)."""

    name: ClassVar[str] = "tabular_mdp"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    horizon: int = 10
    """Steps of an episode."""
    states: int = 10
    """States of an MDP."""
    actions: int = 5
    """Actions of an MDP."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "states", "actions", at_least=2, at_most=1000)

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            obs_dim=self.states,
            action_dim=self.actions,
            horizon=self.horizon,
            terminates=False,
            has_success=False,
            discrete=True,
        )

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task state action state+1"]:
        shape = (num_tasks, self.states, self.actions)
        uniform = torch.rand(*shape, self.states, generator=generator, device=generator.device)
        exponential = -torch.log1p(-uniform)  # normalized exponentials are Dirichlet(1, ..., 1)
        transition = exponential / exponential.sum(-1, keepdim=True)
        reward = 1 + torch.randn(*shape, 1, generator=generator, device=generator.device)
        return torch.cat([transition, reward], dim=-1)

    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> Worlds:
        return MDPWorlds(self, num_worlds, torch.Generator(device).manual_seed(seed))


class MDPWorlds:
    """:class:`metarl.envs.worlds.Worlds` of MDPs; its generator draws rewards and next states."""

    def __init__(self, task: TabularMDP, num_worlds: int, generator: torch.Generator) -> None:
        device = generator.device
        self.state = torch.zeros(num_worlds, dtype=torch.int64, device=device)
        self.cumulative = torch.ones(num_worlds, task.states, task.actions, task.states, device=device)
        """Probability of a next state up to this one."""
        self.mean_reward = torch.zeros(num_worlds, task.states, task.actions, device=device)
        self._generator = generator
        self._world = torch.arange(num_worlds, device=device)
        self._nowhere = torch.zeros(num_worlds, dtype=torch.bool, device=device)

    def seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def set_tasks(self, task: Float[Tensor, "world state action state+1"]) -> None:
        self.cumulative, self.mean_reward = task[..., :-1].cumsum(-1), task[..., -1]

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        self.state = self.state.masked_fill(mask, 0)

    def observe(self) -> Float[Tensor, "world state"]:
        return torch.nn.functional.one_hot(self.state, self.cumulative.shape[-1]).float()

    def step(self, action: Float[Tensor, "world action"]) -> Outcome:
        chosen = action.argmax(1)
        noise = drawn(torch.randn, (len(action),), self._generator)
        reward = self.mean_reward[self._world, self.state, chosen] + noise
        uniform = drawn(torch.rand, (len(action), 1), self._generator)
        passed = uniform >= self.cumulative[self._world, self.state, chosen]
        self.state = passed.sum(1).clamp(max=passed.shape[1] - 1)  # rounding may leave the last sum below 1
        return Outcome(reward, self._nowhere, self._nowhere, self._nowhere)

    def state_dict(self) -> dict[str, Tensor]:
        state = {name: getattr(self, name).clone() for name in ("state", "cumulative", "mean_reward")}
        return state | {"noise": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in ("state", "cumulative", "mean_reward"):
            setattr(self, name, state[name].to(self.state.device).clone())
        self._generator.set_state(state["noise"])


TabularMDP.presets = {"rl2": TabularMDP()}
