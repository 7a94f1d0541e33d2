"""What a gradient step of RL² is of, chunks of trials, and what it descends: PPO's loss of policy and value."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.losses.policy_gradient import clipped_surrogate_loss, mean_over
from metarl.losses.return_scale import mean_and_std
from metarl.networks.recurrent import ActorCritic
from metarl.types import TrajectoryBatch


class Chunk(NamedTuple):
    """Consecutive steps of trials."""

    inputs: Float[Tensor, "task env time in"]
    """What the policy is fed."""
    batch: TrajectoryBatch
    return_scale: Float[Tensor, "known 2"]
    begins: bool
    """Whether the trials begin with it."""


def chunks(
    inputs: Float[Tensor, "task env time in"],
    batch: TrajectoryBatch,
    return_scale: Float[Tensor, "known 2"],
    *,
    steps: int,
    overlap: int,
) -> Iterator[Chunk]:
    """Trials in pieces of so many steps (0: whole trials), in order, each sharing its last ``overlap`` with the next.

    What is left after the last whole chunk is left out, as are chunks that no trial lasts to. (Published Meta-World
    runs: metaworld-algorithms, ``to_overlapping_chunks``.)
    """
    num_steps = batch.reward.shape[-1]
    length = min(steps or num_steps, num_steps)
    for start in range(0, num_steps - length + 1, length - overlap if length > overlap else length):
        here = slice(start, start + length)
        if start and not any(ranks.everyone(bool(batch.valid[:, :, here].any()))):
            return
        piece = tree_map(lambda x: x[:, :, here], batch)  # noqa: B023
        yield Chunk(inputs[:, :, here], piece, return_scale[here], begins=start == 0)


def trial_loss(
    said: ActorCritic,
    batch: TrajectoryBatch,
    return_scale: Float[Tensor, "known 2"],
    *,
    clip: float,
    value_weight: float,
    entropy_bonus: float,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Clipped surrogate, squared error of the value in deviations of the return, and entropy; and these as metrics."""
    dist, value, _ = said
    log_prob = dist.log_prob(batch.action)
    surrogate = clipped_surrogate_loss(log_prob, batch, clip)
    entropy = mean_over(dist.entropy(), batch.valid)
    mean, std = mean_and_std(return_scale, batch.reward.shape[-1])
    value_loss = 0.5 * mean_over((value - (batch.target - mean) / std).square(), batch.valid)
    loss = surrogate + value_weight * value_loss - entropy_bonus * entropy
    log_ratio = (log_prob - batch.log_prob).detach()
    return loss, {
        "train/loss": loss.detach(),
        "train/value_loss": value_loss.detach(),
        "train/entropy": entropy.detach(),
        "train/kl": mean_over(log_ratio.exp() - 1 - log_ratio, batch.valid),
        "train/clip_fraction": mean_over((log_ratio.exp_().sub_(1).abs_() > clip).float(), batch.valid),
    }


def goes_on(valid: Bool[Tensor, "*batch time"]) -> Bool[Tensor, "*batch time"]:
    """Whether a valid step follows this one: whether the trial goes on."""
    from_here = valid.flip(-1).cumsum(-1).flip(-1)
    return from_here > valid.long()


def before(x: Shaped[Tensor, "task env time ..."]) -> Tensor:
    """The value one step earlier, zeros at the first step."""
    return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], dim=2)
