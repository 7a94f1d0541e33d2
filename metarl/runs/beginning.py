"""Runs that begin with the parameters of another one (``--init-from``), which they take with them into their folder."""

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from metarl.envs.fields import BadField
from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.experiment import Experiment
from metarl.runs.files import require_no_links
from metarl.runs.likeness import LARGEST, shapes_of
from metarl.runs.snapshot import ANY_WRONG_CONTENT, initial_progress
from metarl.runs.states import of_before
from metarl.runs.versions import recorded_commit
from metarl.train import Progress

NAME = "init.ckpt"  # in a run folder
SHOWN = 3  # parameters that differ, by name


def inherit(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """Writes the parameters of the run ``experiment.init_from``, of its newest checkpoint, to ``init.ckpt``.

    Parameters go over, and of RL² the scales of returns and rewards; optimizers, schedules, penalties and
    replays begin anew. The new run needs the other folder no more.

    Returns:
        Which run they are of, at which iteration, for ``versions.json``.

    Raises:
        BadField: no run with a usable checkpoint, or parameters that are not those of the experiment's learner.
    """
    parent = Path(experiment.init_from)
    passed_over: list[str] = []
    try:
        require_no_links(parent, parent / checkpoint.DIRECTORY)
        content = checkpoint.load_newest(parent / checkpoint.DIRECTORY, passed_over.append)
        progress, trial = initial_progress(experiment), experiment.episodes_per_env * experiment.task.horizon
        learned = of_before(progress.learner_state, content["learner"])
        kept = {name: learned[name] for name in ("meta", "return_scale", "reward_stats") if name in learned}
        if len(kept.get("return_scale", [])) > trial:
            del kept["return_scale"]
        come = {"run": experiment.init_from, "iteration": content["iteration"], "env_steps": content["env_steps"]}
        whole = {"learner": kept, **come}
        take_over(progress, whole)
    except CheckpointError as error:
        raise BadField(f"init_from is {experiment.init_from!r}: {error}") from error
    except (OSError, *ANY_WRONG_CONTENT) as error:
        raise BadField(f"init_from is {experiment.init_from!r}: {error}") from error
    checkpoint.save(folder / NAME, whole)
    return come | {"git_commit": recorded_commit(parent)}


def begin_from(progress: Progress, run: Path) -> str:
    """Puts what :func:`inherit` wrote in the place of the initial parameters; says where they come from.

    Raises:
        CheckpointError: it is gone, damaged, or of another learner.
    """
    content = checkpoint.load(run / NAME)
    try:
        take_over(progress, content)
        return f"beginning with the parameters of {content['run']} after {content['iteration']} iterations"
    except ANY_WRONG_CONTENT as error:
        raise CheckpointError(f"{NAME} is of another experiment: {error}") from error


def take_over(progress: Progress, content: dict[str, Any]) -> None:
    """Replaces the parameters of a learner's state before training.

    Raises:
        ValueError: their names, shapes or numbers are not those of the learner.
    """
    template, learned = progress.learner_state, dict(content["learner"])
    if type(content["iteration"]) is not int or not 0 <= content["iteration"] < LARGEST:
        raise ValueError(f"iteration is {content['iteration']!r}, no count")
    taken = {name: value for name, value in of_before(template, learned).items() if name in template._fields}
    for name in ("meta", "reward_stats"):
        require_equal_shapes(getattr(template, name, {}), taken.get(name, {}))
    numbers = tree_leaves(taken)
    if not all(isinstance(x, Tensor) and x.is_floating_point() and bool(x.isfinite().all()) for x in numbers):
        raise ValueError("its parameters are no finite numbers")
    like = next(iter(template.meta.values()))
    moved = tree_map_only(Tensor, lambda x: x.to(like), taken)
    ordered = {name: moved["meta"][name] for name in template.meta}  # of Adam's moments
    progress.learner_state = template._replace(**{**moved, "meta": ordered})


def require_equal_shapes(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Raises ValueError naming the parameters that differ: missing ones, others, and shapes."""
    ours, theirs = shapes_of(wanted), shapes_of(given)
    told = [f"it has no {name}" for name in ours if name not in theirs]
    told += [f"it has {name}, which this learner has not" for name in theirs if name not in ours]
    told += [
        f"its {name} has shape {theirs[name]}, this learner's {shape}"
        for name, shape in ours.items()
        if name in theirs and theirs[name] != shape
    ]
    if told:
        rest = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        raise ValueError(
            f"{', '.join(told[:SHOWN])}{rest}; use the learner, policy and task that its parameters are of"
        )
