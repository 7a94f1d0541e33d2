"""Everything a run continues from, as a checkpoint's content, and back."""

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_map_only

from metarl import ranks
from metarl.envs.api import TaskEnv
from metarl.envs.fields import BadField
from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.experiment import Experiment
from metarl.runs.identity import identity, require_same_experiment
from metarl.runs.likeness import require_counters, require_like, require_shapes
from metarl.runs.selection import selection_of
from metarl.runs.states import device_of, like, of_before, plain
from metarl.seeds import stream
from metarl.train import Progress


def initial_progress(experiment: Experiment) -> Progress:
    """The state before the first iteration, a function of the seed alone.

    Raises:
        BadField: the learner begins with what no checkpoint may hold.
    """
    seed, device = experiment.seed, experiment.device
    state = experiment.learner.init(experiment.task.spec, stream(seed, "parameters", device=device))
    try:
        require_like(state, plain(state))
    except ValueError as error:
        name = type(experiment.learner).__name__
        raise BadField(f"learner is {name}, whose checkpoints could not be read: before training {error}") from error
    return Progress(
        state,
        tasks=stream(seed, "tasks"),
        actions=stream(seed, "actions", device=device),
        updates=stream(seed, "updates", device=device),
    )


def load_progress(experiment: Experiment, run: Path, warn: Callable[[str], None]) -> Progress:
    """The newest usable checkpoint of a run: counters and learner, without its worlds."""
    return _progress_of(experiment, checkpoint.load_newest(run / checkpoint.DIRECTORY, warn))


class Loaded(NamedTuple):
    """A checkpoint that was asked for, and where it stands in its run."""

    progress: Progress
    asked: str
    """last, best, or the number of its iteration."""
    last: int
    """Iterations that the run had at its newest checkpoint."""
    stopped_early: bool
    """The run ended for want of a better validation."""
    total: int
    """Iterations that were asked for."""

    @property
    def complete(self) -> bool:
        """Whether the run came to its end, be the checkpoint its last or an earlier one."""
        return self.last >= self.total or self.stopped_early

    def describe(self) -> str:
        """Which iteration this is, and whether the run is complete."""
        iteration = self.progress.iteration
        chosen = {"last": "iteration", "best": "best by validation: iteration"}.get(self.asked, "chosen: iteration")
        if not self.complete:
            at = "" if iteration == self.last else f"{chosen} {iteration}, "
            return f"{at}unfinished: {self.last} of {self.total} iterations"
        if self.stopped_early and self.last < self.total:
            return f"{chosen} {iteration}, stopped early after {self.last} of {self.total}"
        return f"{chosen} {iteration}" + ("" if iteration == self.last else f" of {self.last}")


def load_chosen(experiment: Experiment, run: Path, which: str, warn: Callable[[str], None]) -> Loaded:
    """The checkpoint ``last``, ``best`` by validation as the newest one says, or of iteration ``which``.

    Raises:
        BadField: ``which`` is none of these, or nothing was validated.
        CheckpointError: there is no such checkpoint, or it is not usable.
    """
    newest = checkpoint.load_newest(run / checkpoint.DIRECTORY, warn)
    content, selection = newest, selection_of(newest)
    progress = _progress_of(experiment, newest)
    last = progress.iteration
    if which == "best" and not selection.iteration:
        raise BadField(f"checkpoint is best: {run} has no validation to tell, train with --validation-interval")
    if which != "last":
        if which != "best" and not re.fullmatch(r"[0-9]{1,10}", which):
            raise BadField(f"checkpoint is {which!r}: use last, best or the number of an iteration")
        iteration = selection.iteration if which == "best" else int(which)
        if iteration != last:
            content = checkpoint.load_iteration(run / checkpoint.DIRECTORY, iteration)
            progress = _progress_of(experiment, content)
    return Loaded(progress, which, last, selection.exhausted(experiment.patience), experiment.iterations)


def _progress_of(experiment: Experiment, content: dict[str, Any]) -> Progress:
    progress = initial_progress(experiment)
    require_same_experiment(experiment, content)
    restore_learner(progress, content)
    return progress


def capture(experiment: Experiment, progress: Progress, env: TaskEnv | None) -> dict[str, Any]:
    """Counters, learner, generators and worlds where there are any, in new memory; and which experiment they are of."""
    return {
        "experiment": identity(experiment),
        "iteration": progress.iteration,
        "env_steps": progress.env_steps,
        "learner": plain(progress.learner_state),
        "tasks": progress.tasks.get_state(),
        "actions": progress.actions.get_state(),
        "updates": progress.updates.get_state(),
        "env": {} if env is None else env.state_dict(),
        "device": progress.actions.device.type,
        "num_threads": torch.get_num_threads(),
        **({"ranks": ranks.size()} if ranks.size() > 1 else {}),
    }


def restore(
    experiment: Experiment,
    progress: Progress,
    env: TaskEnv | None,
    content: dict[str, Any],
    directory: Path | None = None,
) -> None:
    """Puts ``progress`` and ``env`` where :func:`capture` found them.

    ``directory`` is the one that the checkpoint is of: a replay's files are there, without it none is read.

    On a device of another kind, whose generators cannot go on with the same numbers, actions and resets are drawn from
    new streams of the same seed.

    Raises:
        CheckpointError: the checkpoint is of another experiment.
    """
    require_same_experiment(experiment, content)
    if (before := content.get("ranks", 1)) != ranks.size():
        raise CheckpointError(
            f"the run has {before} processes, this is {ranks.size()}: start it with torchrun --nproc-per-node {before}"
        )
    restore_learner(progress, content, directory)
    try:
        progress.tasks.set_state(content["tasks"])
        require_shapes("env", {} if env is None else env.state_dict(), content["env"])
        seed, device = experiment.seed, str(progress.actions.device)
        moves = content.get("device", "cpu") != progress.actions.device.type
        if moves:
            progress.actions = stream(seed, "actions", progress.iteration, device=device)
            progress.updates = stream(seed, "updates", progress.iteration, device=device)
        else:
            progress.actions.set_state(content["actions"])
            if "updates" in content:  # of checkpoints since there is this stream
                progress.updates.set_state(content["updates"])
        if env is None:
            return
        if not moves:
            env.load_state_dict(content["env"])
            return
        resets = (stream(seed, f"moved {n}", progress.iteration, device=device).get_state() for n in count())
        moved = tree_map_only(torch.Tensor, lambda x: next(resets) if _is_generator(x) else x, content["env"])
        env.load_state_dict(moved)
    except ANY_WRONG_CONTENT as error:
        raise CheckpointError(f"the checkpoint is of another experiment: {_said(error)}") from error


def _is_generator(x: torch.Tensor) -> bool:
    """Whether a tensor of an environment's state is that of a random generator: nothing else there is bytes."""
    return x.dtype == torch.uint8


def restore_learner(progress: Progress, content: dict[str, Any], directory: Path | None = None) -> None:
    """The counters and the learner's state alone, checked against what the experiment builds.

    Raises:
        CheckpointError: the checkpoint is of another experiment, or holds what no training leaves.
    """
    template = progress.learner_state
    try:
        learned = of_before(template, content["learner"])
        require_like(template, learned)
        counters = require_counters(content)
        state = like(template, learned, directory, device_of(template))
    except ANY_WRONG_CONTENT as error:
        raise CheckpointError(f"the checkpoint is of another experiment: {_said(error)}") from error
    progress.learner_state = state
    progress.iteration, progress.env_steps = counters


ANY_WRONG_CONTENT = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)


def _said(error: Exception) -> str:
    """In one line."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
