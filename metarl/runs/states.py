"""A learner's state as the plain values of a checkpoint, and back: any nesting of NamedTuples, dicts and lists."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.replay import Replay
from metarl.runs import replays

OLD_REWARD = "reward_mean_and_std"  # among RL²'s weights, once


def plain(state: Any) -> Any:
    """NamedTuples as dicts by their fields; tensors and replays as they are."""
    if isinstance(state, tuple) and hasattr(state, "_asdict"):
        return {name: plain(value) for name, value in state._asdict().items()}
    if isinstance(state, Mapping):
        return {name: plain(value) for name, value in state.items()}
    return [plain(value) for value in state] if isinstance(state, list | tuple) else state


def like(template: Any, content: Any, directory: Path | None, device: torch.device) -> Any:
    """The inverse of :func:`plain`, on a device; a state before training says which NamedTuples there are.

    Args:
        directory: where the files of replays are; None: they stay empty.
    """
    if isinstance(template, Replay):
        return replays.restored(template, content, directory)
    if isinstance(template, tuple) and hasattr(template, "_asdict"):
        fields = {n: like(part, content[n], directory, device) for n, part in template._asdict().items()}
        return type(template)(**fields)
    if is_optimizer(content):
        return content  # Adam moves its own
    if isinstance(content, Mapping):
        parts = template if isinstance(template, Mapping) else {}
        return {name: like(parts.get(name), value, directory, device) for name, value in content.items()}
    if isinstance(content, list | tuple):
        known = template if isinstance(template, list | tuple) else [None] * len(content)
        found = [like(a, b, directory, device) for a, b in zip(known, content, strict=True)]
        return tuple(found) if isinstance(template, tuple) else found
    return content.to(device) if isinstance(content, Tensor) else content


def is_optimizer(content: Any) -> bool:
    """Whether it is what torch's optimizers say of themselves."""
    return isinstance(content, Mapping) and "param_groups" in content


def device_of(state: Any) -> torch.device:
    """Where the first tensor of a state is."""
    return next((leaf.device for leaf in tree_leaves(state) if isinstance(leaf, Tensor)), torch.device("cpu"))


def of_before(template: Any, learned: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of a learner, where an earlier version wrote it, as this one would have.

    RL² had its reward's mean and deviation among its weights; ES-MAML the seed of its perturbations.
    """
    found = dict(learned)
    if "reward_stats" in template._fields and "reward_stats" not in found:
        meta = dict(found["meta"])
        both = meta.pop(OLD_REWARD, None)
        stats = {} if both is None else {"mean": both[0].clone(), "std": both[1].clone()}
        found |= {"meta": meta, "reward_stats": stats}
    if {"seed", "num_updates"} <= found.keys() and template._fields == ("meta", "optimizer"):
        del found["seed"], found["num_updates"]
    return found
