"""The evidence lower bound of VariBAD (Zintgraf et al. 2020, equations 7 to 10).

ELBO_t = E[log p(trial | m)] - KL(q_t || q_{t-1}), m drawn from q_t, the posterior after t steps; of each t the *whole*
trial is reconstructed, its future included, and the posterior before is the prior: of t = 0 the standard normal.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.envs.fields import require, require_numbers
from metarl.networks.belief import BeliefModel, Posterior, Transitions
from metarl.types import Params


class Trials(NamedTuple):
    """Whole trials of a task each, padded to the length of the longest."""

    steps: Transitions
    """Leaves [trial time ...]."""
    length: Int[Tensor, " trial"]
    """Steps before the padding."""
    task: Float[Tensor, "trial param"]


@dataclass(frozen=True)
class ELBO:
    """How encoder and decoders learn."""

    belief_learning_rate: float = 1e-3
    """Adam's step size of encoder and decoders."""
    belief_updates: int = 3
    """Gradient steps of encoder and decoders in a meta-update."""
    belief_trials: int = 25
    """Trials of such a step, drawn from the replay."""
    belief_max_grad_norm: float = 1.0
    """Longer gradients of encoder and decoders are shortened to this."""
    replay_episodes: int = 20_000
    """Room of the replay that encoder and decoders learn from, in episodes of full length: of trials of two episodes
    half as many; 0: they learn from the trials of the meta-batch, all at once."""
    kl_weight: float = 0.01
    """Weight of the KL divergence from the posterior to the one a step earlier."""
    elbo_prefixes: int = 0
    """Lengths of a trial's beginning that are encoded, drawn; 0: all of them."""
    elbo_decodes: int = 0
    """Steps of a trial that are reconstructed from each, drawn; 0: all of them."""
    bptt_steps: int = 0
    """Steps that gradients flow back through the encoder's memory, which is carried on; 0: the whole trial."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "belief_learning_rate", "belief_max_grad_norm", above=0)
        require(self, "belief_trials", at_least=1)
        require(self, "belief_updates", "replay_episodes", "kl_weight", at_least=0)
        require(self, "elbo_prefixes", "elbo_decodes", "bptt_steps", at_least=0)

    def __call__(
        self, model: BeliefModel, params: Params, trials: Trials, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss, which is the negative ELBO with its KL term weighted, and its terms as metrics."""
        how = {"prefixes": self.elbo_prefixes, "decodes": self.elbo_decodes, "bptt_steps": self.bptt_steps}
        terms = negative_elbo(model, params, trials, generator, **how)
        loss = terms.reward + terms.state + terms.task + self.kl_weight * terms.kl
        return loss, {f"train/belief_{name}": term.detach() for name, term in terms._asdict().items()}


class NegativeElbo(NamedTuple):
    """Terms of -ELBO_t, on average over trials and prefixes t; zero where there is no such decoder."""

    reward: Float[Tensor, ""]
    """-log p of all rewards of a trial, but for a constant."""
    state: Float[Tensor, ""]
    """Squared error of all next observations of a trial."""
    task: Float[Tensor, ""]
    """-log p of the task's parameter, or its squared error."""
    kl: Float[Tensor, ""]
    """From the posterior to the one a step earlier."""


def negative_elbo(
    model: BeliefModel,
    params: Params,
    trials: Trials,
    generator: torch.Generator,
    *,
    prefixes: int = 0,
    decodes: int = 0,
    bptt_steps: int = 0,
) -> NegativeElbo:
    """An estimate of it, one draw of the latent a prefix.

    Args:
        generator: draws latents, prefixes and steps.
        prefixes: lengths t of which a trial's ELBO is taken, drawn with replacement; 0: all, from 0 to the trial's.
        decodes: steps that are reconstructed of each prefix, drawn with replacement and weighted so that the estimate
            stays unbiased; 0: all.
        bptt_steps: steps that gradients flow back through the encoder's memory; 0: the whole trial.
    """
    num_steps, length = trials.steps.reward.shape[1], trials.length.unsqueeze(1)
    posteriors = model.posteriors(params, trials.steps, bptt_steps=bptt_steps)
    prefix, decoded = drawn(length + 1, prefixes, num_steps + 1, generator), None
    counts = (prefix <= length).to(trials.steps.reward.dtype)
    latent = Posterior(*(_at(x, prefix) for x in posteriors)).sample(generator)
    if decodes:
        step = drawn(length, prefix.shape[1] * decodes, num_steps, generator).unflatten(1, (-1, decodes))
        decoded = Transitions(*(_at(x, step.flatten(1)).unflatten(1, step.shape[1:]) for x in trials.steps))
        weight = (length / decodes).unsqueeze(2).expand(step.shape)
    else:
        decoded = Transitions(*(x.unsqueeze(1) for x in trials.steps))
        weight = (torch.arange(num_steps, device=length.device) < length).unsqueeze(1)
    total = counts.sum().clamp(min=1)
    zero = counts.new_zeros(())
    reward = state = task = zero
    if model.decode_reward:
        loss = model.reward_loss(params, latent, decoded)
        reward = ((loss * weight).sum(2) * counts).sum() / total
    if model.decode_state:
        loss = model.state_loss(params, latent, decoded)
        state = ((loss * weight).sum(2) * counts).sum() / total
    if model.decode_task:
        task = (model.task_loss(params, latent, trials.task) * counts).sum() / total
    kl = (_at(kl_to_previous(posteriors), prefix) * counts).sum() / total
    return NegativeElbo(reward, state, task, kl)


def kl_to_previous(posterior: Posterior) -> Float[Tensor, "trial time"]:
    """KL(q_t || q_{t-1}) along time, of the first to the standard normal."""
    mean, log_var = posterior
    mean_before, log_var_before = (torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1) for x in posterior)
    ratio = (log_var - log_var_before).exp()
    distance = (mean - mean_before).square() * (-log_var_before).exp()
    return 0.5 * (ratio + distance - 1 - log_var + log_var_before).sum(-1)


def drawn(
    bound: Int[Tensor, "trial 1"], count: int, largest: int, generator: torch.Generator
) -> Int[Tensor, "trial count"]:
    """So many whole numbers of each trial, uniform from 0 to below its bound (0 where that is 0); of a count of 0 all
    below ``largest``."""
    if not count:
        return torch.arange(largest, device=bound.device).expand(len(bound), -1)
    uniform = torch.rand(len(bound), count, generator=generator, device=bound.device)
    return (uniform * bound).long().minimum((bound - 1).clamp(min=0))


def _at(x: Float[Tensor, "trial time ..."], index: Int[Tensor, "trial count"]) -> Tensor:
    """x[trial, index[trial, count]]."""
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), index]
