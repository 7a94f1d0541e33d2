"""VariBAD's variational model of a task (Zintgraf et al. 2020, figure 2): encoder and decoders.

The encoder, a GRU, reads transitions (action, next observation, reward) and says after each of them what it believes of
the task: a Gaussian posterior q(m | what was seen) over a latent m. Decoders predict rewards, next observations, or the
task's parameter from a draw of m; they are needed in training alone.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.networks.layers import apply_layers, init_layers
from metarl.networks.memory import MEMORIES
from metarl.networks.mlp import MOST_UNITS, require_layers
from metarl.types import Params

CELL = MEMORIES["gru"]


class Posterior(NamedTuple):
    """Independent normals over the latent."""

    mean: Float[Tensor, "*batch latent"]
    log_var: Float[Tensor, "*batch latent"]

    def sample(self, generator: torch.Generator) -> Float[Tensor, "*batch latent"]:
        """A draw through which gradients flow (Kingma & Welling 2014)."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + (0.5 * self.log_var).exp() * noise

    def features(self) -> Float[Tensor, "*batch features"]:
        """What a policy is told of it."""
        return torch.cat([self.mean, self.log_var], dim=-1)


class Transitions(NamedTuple):
    """Steps of trials: what the encoder reads and the decoders predict."""

    obs: Float[Tensor, "*batch obs"]
    action: Float[Tensor, "*batch act"]
    reward: Float[Tensor, "*batch"]
    next_obs: Float[Tensor, "*batch obs"]


@dataclass(frozen=True)
class BeliefModel:
    latent_size: int = 5
    """Dimensions of the latent."""
    belief_units: int = 64
    """Units of the encoder's GRU."""
    obs_units: int = 8
    """ReLU units through which the encoder is fed the observation a step led to."""
    action_units: int = 0
    """The same of the action; 0: it is not fed."""
    reward_units: int = 8
    """The same of the reward."""
    decoder_sizes: tuple[int, ...] = (32, 32)
    """Units of each ReLU layer of a decoder."""
    decode_reward: bool = True
    """Predict the rewards of the trial."""
    decode_state: bool = False
    """Predict the observations that steps of the trial lead to."""
    decode_task: int = 0
    """Numbers of the task's parameter, where it shall be predicted: training knows it, tests do not (the paper's
    oracle, after Humplik et al. 2019); 0: it is not."""
    reward_model: Literal["gaussian", "bernoulli"] = "gaussian"
    """Likelihood of rewards: a normal of variance 1/2, whose negative logarithm is the squared error; or the
    probability that the reward is positive."""
    reward_of: Literal["transition", "next_obs"] = "transition"
    """What a reward is predicted from, besides the latent: observation, action and next observation, or the last of
    these alone."""
    levels: tuple[int, ...] = ()
    """Where observations are whole numbers from 0 up to these, not included: the reward decoder has an output for each
    next observation (as published for GridNavi) and the task decoder one for each task, which is such a number tuple,
    too; empty: observations are inputs, and task parameters are regressed."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "latent_size", "belief_units", at_least=1, at_most=MOST_UNITS)
        require(self, "obs_units", "action_units", "reward_units", at_least=0, at_most=MOST_UNITS)
        require_layers("decoder_sizes", self.decoder_sizes)
        if not 0 <= math.prod(self.levels) <= MOST_UNITS or any(level < 1 for level in self.levels):
            raise BadField(f"levels is {self.levels}: use at least 1 each, and at most {MOST_UNITS} in all")
        require(self, "decode_task", at_least=0, at_most=MOST_UNITS)
        if self.levels and self.decode_task not in (0, len(self.levels)):
            raise BadField(f"decode_task is {self.decode_task}: use {len(self.levels)}, as levels have it, or 0")
        if not (self.decode_reward or self.decode_state or self.decode_task):
            raise BadField("decode_reward is False: use True for one of decode_reward, decode_state, decode_task")
        if not (self.obs_units or self.action_units or self.reward_units):
            raise BadField("obs_units is 0: use at least 1 for one of obs_units, action_units, reward_units")

    def require_fits(self, spec: EnvSpec) -> None:
        """Refuses tasks whose observations it cannot enumerate.

        Raises:
            BadField: ``levels`` are not one for each number of an observation.
        """
        if self.levels and len(self.levels) != spec.obs_dim:
            raise BadField(f"levels is {self.levels}: an observation has {spec.obs_dim} numbers, use as many, or none")

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """Parameters before training: ``encoder.*`` and ``decoder.*``."""
        self.require_fits(spec)
        obs, act, params = spec.obs_dim, spec.action_dim, Params()
        embedded = {"obs": (obs, self.obs_units), "action": (act, self.action_units), "reward": (1, self.reward_units)}
        for name, sizes in embedded.items():
            params |= init_layers(f"encoder.{name}", sizes, generator) if sizes[1] else {}
        weights = CELL.init(sum(units for _, units in embedded.values()), self.belief_units, generator)
        params |= {f"encoder.memory.{name}": value for name, value in weights.items()}
        params |= init_layers("encoder.posterior", (self.belief_units, 2 * self.latent_size), generator)
        num_states = math.prod(self.levels)
        seen = 2 * obs + act if self.reward_of == "transition" else obs
        wanted = {
            "reward": (0, num_states) if self.levels else (seen, 1),
            "state": (obs + act, obs),
            "task": (0, num_states if self.levels else self.decode_task),
        }
        for name, (num_inputs, num_outputs) in wanted.items():
            if getattr(self, f"decode_{name}"):
                layers = (self.latent_size + num_inputs, *self.decoder_sizes, num_outputs)
                params |= init_layers(f"decoder.{name}", layers, generator)
        return params

    def empty_memory(self, batch: int, device: torch.device) -> Float[Tensor, "batch hidden"]:
        """What the encoder remembers at the beginning of a trial."""
        return CELL.empty(batch, self.belief_units, device)

    def posterior(self, params: Params, hidden: Float[Tensor, "*batch hidden"]) -> Posterior:
        """What is believed of the task; from the empty memory, before anything was seen."""
        return Posterior(*apply_layers(params, "encoder.posterior", hidden).chunk(2, dim=-1))

    def remember(
        self,
        params: Params,
        steps: Transitions,
        hidden: Float[Tensor, "batch hidden"],
    ) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch hidden"]]:
        """The memory after each of consecutive steps [batch time ...], and after the last."""
        read = {"obs": steps.next_obs, "action": steps.action, "reward": steps.reward.unsqueeze(-1)}
        embedded = [
            torch.relu(linear(x, params[f"encoder.{name}.weight_0"], params[f"encoder.{name}.bias_0"]))
            for name, x in read.items()
            if f"encoder.{name}.weight_0" in params
        ]
        prefix = "encoder.memory."
        weights = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
        return CELL(weights, torch.cat(embedded, dim=-1), hidden)

    def posteriors(self, params: Params, steps: Transitions, *, bptt_steps: int = 0) -> Posterior:
        """The posterior before the first and after each step of whole trials [trial time ...]: [trial time+1 latent].

        Args:
            bptt_steps: steps that gradients flow back through the memory; 0: the whole trial.
        """
        num_steps = steps.reward.shape[1]
        hidden = self.empty_memory(len(steps.reward), steps.reward.device)
        pieces = [hidden.unsqueeze(1)]
        for start in range(0, num_steps, bptt_steps or num_steps):
            here = slice(start, start + (bptt_steps or num_steps))
            outputs, hidden = self.remember(params, Transitions(*(x[:, here] for x in steps)), hidden.detach())
            pieces.append(outputs)
        return self.posterior(params, torch.cat(pieces, dim=1))

    def reward_logits(self, params: Params, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch state"]:
        """The reward decoder's outputs for every state, where it has one for each (``levels``)."""
        return apply_layers(params, "decoder.reward", latent)

    def reward_loss(
        self,
        params: Params,
        latent: Float[Tensor, "trial prefix latent"],
        steps: Transitions,
    ) -> Float[Tensor, "trial prefix step"]:
        """-log p(reward | latent, step), but for a constant; leaves of ``steps`` [trial #prefix step ...]."""
        if self.levels:
            outputs = self.reward_logits(params, latent)
            state = self.index(steps.next_obs).expand(*latent.shape[:2], -1)
            predicted = outputs.gather(-1, state)
        else:
            seen = steps.obs, steps.action, steps.next_obs
            inputs = torch.cat(seen if self.reward_of == "transition" else seen[2:], dim=-1)
            predicted = apply_layers(params, "decoder.reward", beside(latent, inputs)).squeeze(-1)
        reward = steps.reward.expand_as(predicted)
        if self.reward_model == "gaussian":
            return (predicted - reward).square()
        return binary_cross_entropy_with_logits(predicted, (reward > 0).to(predicted.dtype), reduction="none")

    def state_loss(
        self,
        params: Params,
        latent: Float[Tensor, "trial prefix latent"],
        steps: Transitions,
    ) -> Float[Tensor, "trial prefix step"]:
        """Squared error of the predicted next observation, mean over its numbers."""
        inputs = beside(latent, torch.cat([steps.obs, steps.action], dim=-1))
        return (apply_layers(params, "decoder.state", inputs) - steps.next_obs).square().mean(-1)

    def task_loss(
        self, params: Params, latent: Float[Tensor, "trial prefix latent"], task: Float[Tensor, "trial param"]
    ) -> Float[Tensor, "trial prefix"]:
        """-log p(task | latent) where tasks can be enumerated, else the mean squared error of the parameter."""
        predicted = apply_layers(params, "decoder.task", latent)
        if not self.levels:
            return (predicted - task.unsqueeze(1)).square().mean(-1)
        wanted = self.index(task).unsqueeze(1).expand(predicted.shape[:2])
        return cross_entropy(predicted.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)

    def index(self, cell: Float[Tensor, "*batch number"]) -> Int[Tensor, "*batch"]:
        """The number of an observation, or of a task, among all there are; the last of its numbers runs fastest."""
        index = torch.zeros_like(cell[..., 0]).long()
        for level, number in zip(self.levels, cell.unbind(-1), strict=True):
            index = index * level + number.round().long().clamp(0, level - 1)
        return index


def beside(
    latent: Float[Tensor, "trial prefix latent"], x: Float[Tensor, "trial _prefix step in"]
) -> Float[Tensor, "trial prefix step both"]:
    """Each latent beside each of its steps."""
    shape = (*latent.shape[:2], x.shape[2])
    return torch.cat([latent.unsqueeze(2).expand(*shape, -1), x.expand(*shape, -1)], dim=-1)
