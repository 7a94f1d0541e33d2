"""What a gradient step on trials is of, all of them or chunks, and what it descends: PPO's loss of policy and value."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.losses.advantages import gae, normalize
from metarl.losses.policy_gradient import clipped_surrogate_loss, mean_over
from metarl.networks.protocol import MemoryPolicy
from metarl.networks.recurrent import ActorCritic
from metarl.types import Params, TrajectoryBatch


def chunks(
    inputs: Float[Tensor, "task env time in"], batch: TrajectoryBatch, *, steps: int, overlap: int
) -> Iterator[tuple[Tensor, TrajectoryBatch]]:
    """Trials, and what the policy is fed in them, in pieces of so many steps (0: whole trials), in order, each sharing
    its last ``overlap`` with the next.

    What is left after the last whole chunk is left out, as are chunks that no trial lasts to. (Published Meta-World
    runs: metaworld-algorithms, ``to_overlapping_chunks``.)
    """
    num_steps = batch.reward.shape[-1]
    length = min(steps or num_steps, num_steps)
    for start in range(0, num_steps - length + 1, length - overlap if length > overlap else length):
        here = slice(start, start + length)
        if start and not any(ranks.everyone(bool(batch.valid[:, :, here].any()))):
            return
        yield inputs[:, :, here], tree_map(lambda x: x[:, :, here], batch)  # noqa: B023


def trial_loss(
    said: ActorCritic, batch: TrajectoryBatch, *, clip: float, value_weight: float, entropy_bonus: float
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Clipped surrogate, squared error of the value, and entropy; and these as metrics.

    Args:
        batch: its ``target`` in the units of the value, deviations of the return.
    """
    dist, value, _ = said
    log_prob = dist.log_prob(batch.action)
    surrogate = clipped_surrogate_loss(log_prob, batch, clip)
    entropy = mean_over(dist.entropy(), batch.valid)
    value_loss = 0.5 * mean_over((value - batch.target).square(), batch.valid)
    loss = surrogate + value_weight * value_loss - entropy_bonus * entropy
    log_ratio = (log_prob - batch.log_prob).detach()
    return loss, {
        "train/loss": loss.detach(),
        "train/value_loss": value_loss.detach(),
        "train/entropy": entropy.detach(),
        "train/kl": mean_over(log_ratio.exp() - 1 - log_ratio, batch.valid),
        "train/clip_fraction": mean_over((log_ratio.exp_().sub_(1).abs_() > clip).float(), batch.valid),
    }


def trial_advantages(
    reward: Float[Tensor, "task env time"],
    value: Float[Tensor, "task env time"],
    ended: Bool[Tensor, "task env time"],
    *,
    discount: float,
    gae_lambda: float,
) -> Float[Tensor, "task env time"]:
    """Generalized advantages over whole trials: credit crosses the ends of episodes, and nothing follows a trial."""
    next_value = torch.cat([value[..., 1:], torch.zeros_like(value[..., :1])], dim=-1)
    return gae(reward, value, next_value, ended, ended, discount=discount, gae_lambda=gae_lambda)


def piecewise(
    policy: MemoryPolicy,
    params: Params,
    inputs: Float[Tensor, "task env time in"],
    memory: Any,
    *,
    steps: int,
    cut: bool,
) -> tuple[ActorCritic, Any]:
    """What a policy says of consecutive steps, from a memory on (None: the empty one), in pieces of so many steps.

    Args:
        cut: no gradient flows from a piece to the one before.

    Returns:
        Leaves [task env time ...], and the memory after the first piece, without its history.
    """
    worlds = inputs.flatten(0, 1)
    memory = policy.empty_memory(len(worlds), worlds.device) if memory is None else memory
    pieces, memories = [], []
    for piece in worlds.split(steps, dim=1):
        dist, value, memory = policy(params, piece, tree_map(Tensor.detach, memory) if cut else memory)
        pieces.append((dist, value))
        memories.append(memory)
    dist, value = tree_map(lambda *x: torch.cat(x, dim=1).unflatten(0, inputs.shape[:2]), *pieces)
    return ActorCritic(dist, value, memory), tree_map(Tensor.detach, memories[0])


def normalized(advantage: Float[Tensor, "task env time"], valid: Bool[Tensor, "task env time"]) -> Tensor:
    """Mean 0 and deviation 1 over the meta-batch, of all ranks."""
    everywhere, counted = ranks.gathered(advantage), ranks.gathered(valid)
    return ranks.own(normalize(everywhere.flatten(0, 1), counted.flatten(0, 1)).view_as(everywhere))


def goes_on(valid: Bool[Tensor, "*batch time"]) -> Bool[Tensor, "*batch time"]:
    """Whether a valid step follows this one: whether the trial goes on."""
    from_here = valid.flip(-1).cumsum(-1).flip(-1)
    return from_here > valid.long()


def before(x: Shaped[Tensor, "task env time ..."]) -> Tensor:
    """The value one step earlier, zeros at the first step."""
    return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], dim=2)
