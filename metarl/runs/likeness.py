"""Whether a checkpoint's content is what the experiment builds: kinds, shapes and numbers, before any of it is used."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metarl.runs.recorded import LARGEST

LARGEST_OF_WORLDS = 2**64  # theirs may be seeds


def require_counters(content: Mapping[str, Any]) -> tuple[int, int]:
    """Iterations and environment steps.

    Raises:
        ValueError: they are no whole numbers from 0 on.
    """
    iteration, env_steps = content["iteration"], content["env_steps"]
    for name, count in (("iteration", iteration), ("env_steps", env_steps)):
        _require_count(name, count)
    return iteration, env_steps


def _require_count(name: str, value: Any, largest: int = LARGEST) -> None:
    if type(value) is not int or not 0 <= value < largest:
        raise ValueError(f"{name} is {value!r}, no count")


def require_like(template: Any, learned: Mapping[str, Any]) -> None:
    """Refuses what a checkpoint says of a learner that the experiment's learner could not have become.

    Args:
        template: its state before training; optimizers are empty, and a running statistic over time may be shorter.
        learned: a state as the values by field that a checkpoint has in its place.

    Raises:
        ValueError: the first part that differs, by name.
        KeyError: a part that is missing.
    """
    if other := learned.keys() - set(template._fields):
        raise ValueError(f"it has {', '.join(sorted(other))}, which the run's learner has not")
    if "meta" in template._fields:
        expected, found = shapes_of(template.meta), shapes_of(learned["meta"])
        if expected != found:
            raise ValueError(f"its parameters are {found}, the run's {expected}")
    for name, like in template._asdict().items():
        if name == "optimizer" and "meta" in template._fields:
            require_adam(learned["meta"], learned[name])
        else:
            _require_part(name, like, learned[name])


def _require_part(name: str, like: Any, value: Any) -> None:
    if isinstance(like, Tensor):
        _require_tensor(name, value, like.dtype)
        if value.dim() != like.dim() or value.shape[1:] != like.shape[1:]:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}, the run's {tuple(like.shape)}")
    elif isinstance(like, tuple) and hasattr(like, "_asdict"):
        for key, part in like._asdict().items():
            _require_part(f"{name}.{key}", part, value[key])
    elif isinstance(like, Mapping) and like:
        if like.keys() != value.keys():
            raise ValueError(f"{name} is of {', '.join(value)}, the run's of {', '.join(like)}")
        for key, part in like.items():
            _require_part(f"{name}.{key}", part, value[key])
    elif isinstance(like, Mapping):
        require_moments(name, value)
    elif isinstance(like, list | tuple):
        for index, (part, other) in enumerate(zip(like, value, strict=True)):
            _require_part(f"{name}.{index}", part, other)
    elif type(like) is int:
        _require_count(name, value)


def require_moments(name: str, optimizer: Any) -> None:
    """Refuses a state of Adam, of whatever parameters, with other things than finite moments of equal shapes."""
    if not isinstance(optimizer, Mapping):
        raise ValueError(f"{name} is no state of Adam")
    for index, moment in (optimizer["state"] if optimizer else {}).items():
        for part in ("exp_avg", "exp_avg_sq"):
            _require_tensor(f"{name}.{index}.{part}", moment[part], torch.float32, torch.float64)
        if moment["exp_avg"].shape != moment["exp_avg_sq"].shape:
            raise ValueError(f"{name}.{index} has moments of two shapes")


def require_adam(meta: Mapping[str, Tensor], optimizer: Any) -> None:
    """Refuses a state of Adam that does not fit the parameters, in their order; what is not learned has none."""
    if not isinstance(optimizer, Mapping):
        raise ValueError("optimizer is no state of Adam")
    if not optimizer:
        return
    (group,), moments = optimizer["param_groups"], optimizer["state"]
    shapes = [tuple(value.shape) for value in meta.values()]
    found = [tuple(moments[index]["exp_avg"].shape) for index in sorted(moments)]
    if list(moments) != list(range(len(moments))) or list(group["params"]) != list(moments):
        raise ValueError("the optimizer has no moments for some parameters")
    unlearned = len(shapes) - len(found)  # the statistics behind the parameters
    if unlearned not in (0, 1) or found != shapes[: len(found)]:
        raise ValueError(f"the optimizer's moments are of {found}, the parameters of {shapes}")
    for index, moment in moments.items():
        for name in ("exp_avg", "exp_avg_sq"):
            _require_tensor(f"optimizer.{index}.{name}", moment[name], torch.float32, torch.float64)
            if tuple(moment[name].shape) != found[index]:
                raise ValueError(f"the optimizer's {name} is of {tuple(moment[name].shape)}")


def require_shapes(name: str, template: Any, found: Any) -> None:
    """Refuses the state of other worlds: more or fewer of them, or of another kind."""
    if isinstance(template, Mapping):
        if not isinstance(found, Mapping):
            raise ValueError(f"{name} is no state of worlds")
        for key in template.keys() & found.keys():
            require_shapes(f"{name}.{key}", template[key], found[key])
    elif isinstance(template, Tensor):
        if not isinstance(found, Tensor) or found.dtype != template.dtype:
            raise ValueError(f"{name} is no tensor of {template.dtype}")
        if found.dtype != torch.uint8 and found.shape != template.shape:  # a generator's, of another device
            raise ValueError(
                f"{name} has the shape {tuple(found.shape)}, the run's worlds {tuple(template.shape)}: is num_tasks or "
                "num_envs another?"
            )
    elif type(template) is int:
        _require_count(name, found, LARGEST_OF_WORLDS)


def shapes_of(parameters: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors by name."""
    return {name: tuple(value.shape) for name, value in parameters.items()}


def _require_tensor(name: str, value: Any, *dtypes: torch.dtype) -> None:
    if not isinstance(value, Tensor) or value.dtype not in dtypes:
        raise ValueError(f"{name} is no tensor of {' or '.join(map(str, dtypes))}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} holds numbers that are not finite")
