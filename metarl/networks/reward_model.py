"""Bayes' rule on a learned reward model: which task parameters would have earned what was earned.

A network predicts the reward of a step from what was seen of it and the parameters of its task. Of candidates for these
parameters, spread evenly over the range of training, those are likely whose predictions fit (the reward decoder of
Zintgraf et al. 2020, with an exact posterior over candidates in the place of an encoder).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from metarl.networks.layers import apply_layers, init_layers
from metarl.types import Params

LARGEST = torch.finfo(torch.float32).max  # finite, as all that a checkpoint holds has to be
MOST_EVIDENCE = 3.0  # that a single step can be against a candidate, in nats


@dataclass(frozen=True)
class RewardModel:
    """Its functions take two dicts: ``model``, the weights, and ``known``, what is followed and not learned: the
    ``box`` [2, hidden] of the least and largest parameters so far (the least above the largest before any), the
    candidates' ``spread`` in it, means and deviations of ``inputs`` and ``reward``, and ``error``, the root mean square
    of its errors."""

    num_hidden: int
    """Task parameters to be inferred."""
    size: int
    """Units of each of its two layers."""
    candidates: int
    temper: float
    """Standard deviation of rewards around their prediction, in root mean square errors."""

    def init(self, num_seen: int, generator: torch.Generator) -> Params:
        model = init_layers("step", (num_seen, self.size), generator)
        model |= init_layers("task", (self.num_hidden, self.size), generator)
        return model | init_layers("reward", (self.size, self.size, 1), generator)

    def nothing_known(self, num_seen: int, device: torch.device) -> Params:
        unit = torch.tensor([0.0, 1.0], device=device)
        empty = torch.tensor([[LARGEST], [-LARGEST]], device=device)
        sobol = torch.quasirandom.SobolEngine(self.num_hidden, scramble=True, seed=0)
        return {
            "box": empty.repeat(1, self.num_hidden),
            "spread": 2 * sobol.draw(self.candidates).to(device) - 1,
            "inputs": unit.unsqueeze(1).repeat(1, num_seen),
            "reward": unit,
            "error": torch.ones((), device=device),
        }

    def followed(
        self,
        known: Params,
        hidden: Float[Tensor, "task hidden"],
        seen: Float[Tensor, "trial time in"],
        reward: Float[Tensor, "2"],
        rate: float,
    ) -> Params:
        """What is known after a batch, which counts as ``rate`` in means and deviations.

        Args:
            reward: mean and deviation of its rewards.
        """
        spread = torch.stack([seen.mean((0, 1)), seen.std((0, 1)).clamp(min=0.05)])
        low, high = known["box"]
        return known | {
            "box": torch.stack([hidden.amin(0).minimum(low), hidden.amax(0).maximum(high)]),
            "inputs": known["inputs"].lerp(spread, rate),
            "reward": known["reward"].lerp(reward, rate),
        }

    def relative(self, known: Params, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Task parameters in [-1, 1] of their range."""
        low, high = known["box"]
        return 2 * (hidden - low) / (high - low).clamp(min=1e-6) - 1

    def predicted(
        self, model: Params, known: Params, seen: Float[Tensor, "*#batch in"], task: Float[Tensor, "*#batch hidden"]
    ) -> Float[Tensor, "*#batch"]:
        """Standardized rewards; ``task`` as :meth:`relative` has it."""
        mean, std = known["inputs"]
        joined = apply_layers(model, "step", (seen - mean) / std) + apply_layers(model, "task", task)
        return apply_layers(model, "reward", silu(joined), silu).squeeze(-1)

    def errors(
        self,
        model: Params,
        known: Params,
        seen: Float[Tensor, "*batch in"],
        hidden: Float[Tensor, "*batch hidden"],
        reward: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch"]:
        """Of the predictions, in standard deviations of the reward."""
        return self.predicted(model, known, seen, self.relative(known, hidden)) - self.standardized(known, reward)

    def standardized(self, known: Params, reward: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        mean, std = known["reward"]
        return (reward - mean) / std

    def evidence(
        self, model: Params, known: Params, seen: Float[Tensor, "*batch in"], reward: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch candidate"]:
        """Log-likelihood of the reward under each candidate; none before anything is known."""
        low, high = known["box"]
        if (low > high).any():
            return seen.new_zeros(*reward.shape, self.candidates)
        predicted = self.predicted(model, known, seen.unsqueeze(-2), known["spread"])
        error = (self.standardized(known, reward).unsqueeze(-1) - predicted) / (self.temper * known["error"])
        return -(error.square() / 2).clamp(max=MOST_EVIDENCE)

    def features(self, known: Params, evidence: Float[Tensor, "*batch candidate"]) -> Float[Tensor, "*batch belief"]:
        """Mean and standard deviation of the belief, from the sum of the evidence."""
        weight, tasks = evidence.softmax(-1), known["spread"]
        mean = weight @ tasks
        variance = weight @ tasks.square() - mean.square()
        return torch.cat([mean, variance.clamp(min=0).sqrt()], dim=-1)
