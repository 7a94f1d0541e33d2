"""Returns and successes by episode: a batch holds the steps of several episodes of each world, one after the other."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.types import Metrics, TrajectoryBatch


def adaptation_metrics(
    batches: list[TrajectoryBatch], episodes: int, labels: list[str], *, has_success: bool
) -> Metrics:
    """Mean undiscounted return of an episode as the learner adapts, its gain overall, and any success at the end.

    Adaptation goes from batch to batch, one for each inner step, or from episode to episode of a single batch.
    """
    returns = [by_episode(batch, batch.reward, episodes).where(kept(batch, episodes), torch.nan) for batch in batches]
    means = torch.stack([x.nanmean((0, 2)) for x in returns])
    if len(batches) > 1:
        steps = means.mean(1).tolist()
        metrics = {f"meta_train/return_step_{step}": value for step, value in enumerate(steps)}
    else:
        steps = means[0].tolist()
        metrics = {"meta_train/return_trial": sum(steps)}
    metrics["meta_train/return_pre"], metrics["meta_train/return_post"] = steps[0], steps[-1]
    metrics["meta_train/adaptation_gain"] = steps[-1] - steps[0]
    if not has_success:
        return metrics
    after = slice(None) if len(batches) > 1 else slice(-1, None)
    success = by_episode(batches[-1], batches[-1].success.float(), episodes).clamp(max=1.0)
    success = success.where(kept(batches[-1], episodes), torch.nan)[:, after]
    metrics["meta_train/success_post"] = success.nanmean().item()
    return metrics | by_kind("meta_train/success", labels, success)


def by_kind(tag: str, labels: list[str], x: Float[Tensor, "task ..."]) -> Metrics:
    """The mean of ``x`` over the tasks of each kind, where there are several; of kinds where all is NaN, none."""
    kinds = sorted(set(labels)) if len(set(labels)) > 1 else []
    means = {kind: float(x[[label == kind for label in labels]].nanmean()) for kind in kinds}
    return {f"{tag}/{kind}": mean for kind, mean in means.items() if not math.isnan(mean)}


def by_episode(
    batch: TrajectoryBatch, x: Float[Tensor, "task env time"], episodes: int
) -> Float[Tensor, "task episode env"]:
    """The sum of ``x`` over the valid steps of each of the first ``episodes`` episodes of every world."""
    episode, counted = _episode_of_step(batch, episodes)
    sums = x.new_zeros(*x.shape[:2], episodes)
    sums.scatter_add_(-1, episode, x.where(counted, 0.0))
    return sums.transpose(1, 2)


def solved_after(batch: TrajectoryBatch, episodes: int) -> Int[Tensor, "task episode env"]:
    """Steps until the first success in each of the first ``episodes`` episodes of every world; 0 without one."""
    episode, counted = _episode_of_step(batch, episodes)
    never = batch.clock.max() + 2
    steps = (batch.clock + 1).where(batch.success & counted, never)
    first = never.expand(*steps.shape[:2], episodes).clone()
    first.scatter_reduce_(-1, episode, steps, reduce="amin")
    return first.where(first < never, 0).transpose(1, 2)


def solved_at_end(
    batch: TrajectoryBatch, episodes: int, *, horizon: int, window: int = 50
) -> tuple[Bool[Tensor, "task episode env"], Float[Tensor, "task episode env"]]:
    """Success at the last step of each of the first ``episodes`` episodes of every world, and the share of the last
    ``window`` steps before the horizon with success.

    Steps that an early end cut off count as the last one did: who reached a goal that ends the episode is there.
    """
    episode, counted = _episode_of_step(batch, episodes)
    window = min(window, horizon)
    nothing = torch.zeros(*counted.shape[:2], episodes, dtype=torch.int64, device=counted.device)
    length = nothing.scatter_add(-1, episode, counted.long())
    solved = batch.success & counted
    is_last = batch.clock + 1 == length.gather(-1, episode)
    at_last = nothing.scatter_add(-1, episode, (solved & is_last).long())
    in_window = nothing.scatter_add(-1, episode, (solved & (batch.clock >= horizon - window)).long())
    cut_off = (horizon - length).clamp(max=window)
    share = (in_window + cut_off * at_last).double() / window
    return at_last.transpose(1, 2) > 0, share.transpose(1, 2)


def kept(batch: TrajectoryBatch, episodes: int) -> Bool[Tensor, "task episode env"]:
    """Which of the first ``episodes`` episodes of every world have valid steps; the others diverged."""
    episode, counted = _episode_of_step(batch, episodes)
    steps = episode.new_zeros(*episode.shape[:2], episodes)
    return (steps.scatter_add_(-1, episode, counted.long()) > 0).transpose(1, 2)


def without_bad(
    valid: Bool[Tensor, "task env time"],
    diverged: Bool[Tensor, "task env time"],
    ended: Bool[Tensor, "task env time"],
    *,
    trials: bool,
) -> Bool[Tensor, "task env time"]:
    """``valid`` without the episodes that diverged, or with ``trials`` without the worlds in which one did."""
    bad = valid & diverged
    if trials:
        return valid & ~bad.any(-1, keepdim=True)
    episode = ended.long().cumsum(-1) - ended.long()
    return valid & (torch.zeros_like(episode).scatter_add_(-1, episode, bad.long()).gather(-1, episode) == 0)


def _episode_of_step(
    batch: TrajectoryBatch, episodes: int
) -> tuple[Int[Tensor, "task env time"], Bool[Tensor, "task env time"]]:
    """Which episode a step belongs to, and whether it is a valid step of the first ``episodes``."""
    ended = (batch.terminated | batch.truncated).long()
    episode = ended.cumsum(-1) - ended
    return episode.clamp(max=episodes - 1), batch.valid & (episode < episodes)
