"""The catalogue's content, from the code."""

import json
from typing import Any

import torch

from metarl import catalogue, presets
from metarl.algorithms import ALGORITHMS, learner_name
from metarl.cli.parse import choices_of, options_of
from metarl.cli.train import Train
from metarl.cli.verbs import VERBS
from metarl.envs.registry import TASKS, TaskDistribution, find_preset
from metarl.fewshot import LEARNERS, FewShotTasks
from metarl.runs.experiment import Experiment
from metarl.runs.supervised import FewShotExperiment

HELP = {"--help": "flag"}
OF_EXAMPLES = options_of(FewShotExperiment, skip=("task", "learner"))


def describe() -> dict[str, Any]:
    """Verbs, tasks and learners by name, each with its options."""
    training = options_of(Train, skip=("experiment", "task")) | options_of(Experiment, skip=("task", "learner"))
    verbs = {"train": training | HELP} | {
        name: options_of(verb, skip=("run", "runs")) | HELP
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
    """The options of a learner, those of every part that it may have among them."""
    options = options_of(cls)
    for name, choices in choices_of(cls).items():
        options[f"--{name}"] = "value"
        for choice in choices.values():
            options |= options_of(choice) if choice is not type(None) else {}
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
