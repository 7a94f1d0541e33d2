"""The catalogue's content, from the code."""

import dataclasses
import json
from typing import Any

import torch

from metarl import catalogue, presets
from metarl.algorithms import ALGORITHMS, learner_name
from metarl.cli.parse import choices_of, fields_of, kebab, options_of
from metarl.cli.train import Train
from metarl.cli.tune import Tune
from metarl.cli.verbs import VERBS
from metarl.envs.registry import TASKS, TaskDistribution, find_preset
from metarl.extensions import members
from metarl.fewshot import LEARNERS, FewShotTasks
from metarl.runs.experiment import Experiment
from metarl.runs.supervised import FewShotExperiment

HELP = {"--help": "flag"}
EXPERIMENTS = {"train": Train, "tune": Tune}
OF_EXAMPLES = options_of(FewShotExperiment, skip=("task", "learner"))


def describe() -> dict[str, Any]:
    """Verbs, tasks and learners by name, each with its options."""
    common = options_of(Experiment, skip=("task", "learner")) | HELP
    verbs = {verb: options_of(form, skip=("experiment", "task")) | common for verb, form in EXPERIMENTS.items()} | {
        name: options_of(verb, skip=("run", "runs", "command", "names")) | HELP
        for name, verb in VERBS.items()  # which are positional
    }
    tasks = {
        name: {
            "class": cls.__name__,
            "presets": {preset: dimensions(task) for preset, task in (cls.presets or {"-": find_preset(name)}).items()},
            "experiments": {learner: list(presets.find(name, learner)) for learner in presets.learners(name)},
            "options": options_of(cls) | (OF_EXAMPLES if issubclass(cls, FewShotTasks) else {}),
            "worlds": not issubclass(cls, FewShotTasks),
        }
        for name, cls in sorted(TASKS.items())
    }
    learners: dict[str, Any] = {learner_name(cls): {"options": learner_options(cls)} for cls in ALGORITHMS.values()}
    for cls in LEARNERS.values():  # a name may stand for one of each kind: which is meant, the task decides
        options = learners.setdefault(learner_name(cls), {"options": {}})["options"]
        options |= learner_options(cls) | options
    return {"verbs": verbs, "tasks": tasks, "learners": learners}


def learner_options(cls: type) -> dict[str, str]:
    """The options of a learner or a part of one, those of every part that it may have among them."""
    options = options_of(cls) | {f"--{kebab(name)}": "value" for name in choices_of(cls)}
    for hint in fields_of(cls).values():
        for part in members(hint):
            options |= learner_options(part) if isinstance(part, type) and dataclasses.is_dataclass(part) else {}
    return options


def dimensions(task: TaskDistribution) -> tuple[str, ...]:
    """A row of ``metarl list``: what a definition's tasks, observations and actions look like."""
    spec = task.spec
    if isinstance(task, FewShotTasks):
        labels = f"of {spec.action_dim}" if spec.discrete else str(spec.action_dim)
        return str(task.task_size), str(spec.obs_dim), labels, "-", "-", "-"
    parameter = task.sample(1, torch.Generator().manual_seed(0))[0]
    action = f"of {spec.action_dim}" if spec.discrete else str(spec.action_dim)
    numbers = (str(parameter.numel()), str(spec.obs_dim), action, str(spec.horizon))
    return *numbers, "yes" if spec.terminates else "no", "yes" if spec.has_success else "-"


if __name__ == "__main__":
    catalogue.FILE.write_text(json.dumps(describe(), indent=1) + "\n")
