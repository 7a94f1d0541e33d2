"""Everything a run continues from, as a checkpoint's content, and back."""

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from metarl.envs.api import TaskEnv
from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.experiment import Experiment
from metarl.seeds import stream
from metarl.train import Progress


def initial_progress(experiment: Experiment) -> Progress:
    """The state before the first iteration, a function of the seed alone."""
    seed, device = experiment.seed, experiment.device
    state = experiment.learner.init(experiment.task.spec, stream(seed, "parameters", device=device))
    return Progress(state, tasks=stream(seed, "tasks"), actions=stream(seed, "actions", device=device))


def load_progress(experiment: Experiment, run: Path, warn: Callable[[str], None]) -> Progress:
    """The newest usable checkpoint of a run: counters and learner, without its worlds."""
    progress = initial_progress(experiment)
    restore_learner(progress, checkpoint.load_newest(run / checkpoint.DIRECTORY, warn))
    return progress


def capture(progress: Progress, env: TaskEnv) -> dict[str, Any]:
    """Counters, learner, generators and worlds, in new memory."""
    return {
        "iteration": progress.iteration,
        "env_steps": progress.env_steps,
        "learner": progress.learner_state._asdict(),
        "tasks": progress.tasks.get_state(),
        "actions": progress.actions.get_state(),
        "env": env.state_dict(),
        "device": env.device.type,
        "num_threads": torch.get_num_threads(),
    }


def restore(experiment: Experiment, progress: Progress, env: TaskEnv, content: dict[str, Any]) -> None:
    """Puts ``progress`` and ``env`` where :func:`capture` found them.

    On a device of another kind, whose generators cannot go on with the same numbers, actions and resets are drawn from
    new streams of the same seed.

    Raises:
        CheckpointError: the checkpoint is of another experiment.
    """
    restore_learner(progress, content)
    progress.tasks.set_state(content["tasks"])
    if content.get("device", "cpu") == env.device.type:
        progress.actions.set_state(content["actions"])
        env.load_state_dict(content["env"])
        return
    seed, device = experiment.seed, str(env.device)
    progress.actions = stream(seed, "actions", progress.iteration, device=device)
    resets = (stream(seed, f"moved {n}", progress.iteration, device=device).get_state() for n in count())
    env.load_state_dict(tree_map_only(torch.Tensor, lambda x: next(resets) if _is_generator(x) else x, content["env"]))


def _is_generator(x: torch.Tensor) -> bool:
    """Whether a tensor of an environment's state is that of a random generator: nothing else there is bytes."""
    return x.dtype == torch.uint8


def restore_learner(progress: Progress, content: dict[str, Any]) -> None:
    """The counters and the learner's state alone, checked against the shapes that the experiment builds."""
    template = progress.learner_state
    try:
        state = type(template)(**content["learner"])
        _require_shapes(template.meta, state.meta)
        device = next(iter(template.meta.values())).device
        parts = {name: part for name, part in state._asdict().items() if name != "optimizer"}  # Adam moves its own
        moved = tree_map_only(torch.Tensor, lambda x: x.to(device), parts)
        progress.learner_state = state._replace(**moved)
        progress.iteration, progress.env_steps = int(content["iteration"]), int(content["env_steps"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint is of another experiment: {error!r}") from error


def _require_shapes(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    shapes = {name: tuple(value.shape) for name, value in expected.items()}
    others = {name: tuple(value.shape) for name, value in found.items()}
    if shapes != others:
        raise CheckpointError(f"the checkpoint's parameters are {others}, the experiment's {shapes}")
