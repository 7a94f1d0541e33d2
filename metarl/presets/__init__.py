"""Experiment presets: whose hyperparameters and budget an experiment starts from, by task and learner.

    metarl.presets.find("half_cheetah_dir", "maml")["tuned"]

A *task preset* (``maml2017``, ``promp``, ``v5``) is a definition of a task; an *experiment preset* names a task in one
of its definitions, a learner with its hyperparameters, and how much of each. ``tuned`` is always ours; other names say
whose published settings they are. Files here are families of tasks; a file of one's own adds its presets by
:func:`add`.
"""

from collections.abc import Mapping
from dataclasses import replace

from metarl.algorithms import find_learner, learner_name
from metarl.envs.registry import find_preset
from metarl.fewshot import FewShotTasks
from metarl.fewshot import find_learner as find_few_shot_learner
from metarl.presets import (
    ant,
    bandits,
    few_shot,
    field,
    grid_navi,
    gymnasium,
    half_cheetah,
    metaworld,
    navigation,
    pearls,
    tabular_mdps,
    walkers,
)
from metarl.presets.defaults import default
from metarl.runs.experiment import Experiment

_KNOWN: dict[tuple[str, str], dict[str, Experiment]] = {}


def add(presets: Mapping[str, Experiment]) -> None:
    """Makes presets known under their tasks and learners; the first one of a pair is its default."""
    for name, experiment in presets.items():
        key = experiment.task.name, learner_name(type(experiment.learner))
        _KNOWN.setdefault(key, {})[name] = replace(experiment, preset=name)


def find(task: str, learner: str) -> dict[str, Experiment]:
    """The presets of a task and a learner by name, the default first; empty where there is none."""
    return dict(_KNOWN.get((task, learner), {}))


def learners(task: str) -> list[str]:
    """The learners that a task has presets for, in the order they were added."""
    return [learner for known, learner in _KNOWN if known == task]


def make(task: str, learner: str, preset: str | None = None, task_preset: str | None = None) -> Experiment:
    """The experiment ``preset`` of a task and a learner (None: the first, or defaults where there is none).

    Args:
        task_preset: a definition of the task in place of the preset's own.

    Raises:
        ValueError: unknown task, learner or preset, with the names there are.
    """
    definition = find_preset(task, task_preset)
    cls = find_few_shot_learner(learner) if isinstance(definition, FewShotTasks) else find_learner(learner)
    known = find(task, learner_name(cls))
    if preset is None:
        experiment = next(iter(known.values())) if known else default(definition, cls)
    elif preset in known:
        experiment = known[preset]
    else:
        there = ", ".join(known) or f"none (leave --preset out: {learner} then starts from its own defaults)"
        raise ValueError(f"preset is {preset!r}: {task} with {learner} has {there}")
    return experiment if task_preset is None else replace(experiment, task=definition)


for _family in (
    half_cheetah,
    ant,
    walkers,
    navigation,
    bandits,
    tabular_mdps,
    grid_navi,
    gymnasium,
    metaworld,
    few_shot,
    pearls,
    field,
):
    for _presets in _family.PRESETS:
        add(_presets)
