"""``metarl train``: a task, a learner, whose settings to start from, and single fields of them changed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import tyro

from metarl import presets
from metarl.algorithms import learner_name
from metarl.cli.parse import choices_of, choose, options_of, parse, value_of, without
from metarl.envs.registry import TASKS, find_preset
from metarl.runs.config import leaves, to_json
from metarl.runs.experiment import CHANGEABLE, Experiment, LearnerT, TaskT
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.session import execute
from metarl.runs.supervised import FewShotExperiment


@dataclass(frozen=True)
class Train(Generic[TaskT, LearnerT]):
    experiment: tyro.conf.OmitArgPrefixes[Experiment[TaskT, LearnerT]]
    task: tyro.conf.Positional[str] = ""
    """Task distribution (metarl list shows them)."""
    learner: str = ""
    """Meta-learner (metarl list shows them)."""
    task_preset: str = ""
    """Definition of the task, by the work that published it, in place of the experiment preset's."""
    runs: Path = Path("runs")
    """Folder in which the run's folder is made."""
    name: str | None = None
    """Name of the run's folder; by default made of learner, task, preset, seed and time."""
    resume: Path | None = None
    """Run folder to continue from its newest checkpoint. Of the other options only iterations, the intervals, device,
    physics, num_threads and deterministic may then differ from those of the run."""
    code: Path | None = None
    """Python file that defines the task, where it is none of this library's; it is run."""


@dataclass(frozen=True)
class TrainOnExamples(Train[TaskT, LearnerT]):
    experiment: tyro.conf.OmitArgPrefixes[FewShotExperiment[TaskT, LearnerT]]


def train(arguments: Sequence[str], task: str | None) -> int:
    """Trains ``task`` as the other arguments of ``metarl train`` say; returns the exit code.

    Raises:
        ValueError: an argument that cannot work, or that differs from the run to resume.
    """
    code, resumed = value_of("--code", arguments), value_of("--resume", arguments)
    recorded = None if resumed is None else load_experiment(Path(resumed), device=value_of("--device", arguments))
    start = start_of(arguments, task, recorded)
    require_distinct_names(start)
    arguments, start = choose_all(arguments, start)
    arguments = [start.task.name, *arguments]
    kind: Any = TrainOnExamples if isinstance(start, FewShotExperiment) else Train
    form = kind[type(start.task), type(start.learner)]
    default = form(experiment=start, task=start.task.name, learner=learner_name(type(start.learner)))
    options = parse(form, arguments, default=default, prog="metarl train", description=describe(start), config=FLAT)
    if recorded is None:
        run = create_run(options.experiment, options.runs, options.name)
    else:
        run = options.resume
        if options.name is not None:
            raise ValueError(f"name is {options.name!r}: a resumed run keeps its own, leave it out")
        require_same(recorded, options.experiment)
    exit_code = execute(options.experiment, run)
    if exit_code == 0:
        file = code or (sys.argv[0] if type(start.task).__module__ == "__main__" else None)
        code_option = f" --code {file}" if file else ""
        print(
            f"done: metarl evaluate {run}{code_option} · "
            + ("" if isinstance(start, FewShotExperiment) else f"metarl video {run}{code_option} · ")
            + f"tensorboard --logdir {run.parent}"
        )
    return exit_code


FLAT = (tyro.conf.AvoidSubcommands, tyro.conf.OmitArgPrefixes)


def start_of(arguments: Sequence[str], task: str | None, recorded: Experiment | None) -> Experiment:
    """The experiment that the options change: a preset, or the run to resume.

    Raises:
        ValueError: unknown names, or others than the run's.
    """
    asked = {"task": task} | {name: value_of(f"--{name}", arguments) for name in ("learner", "preset", "task-preset")}
    if recorded is not None:
        found = {
            "task": recorded.task.name,
            "learner": learner_name(type(recorded.learner)),
            "preset": recorded.preset,
            "task-preset": next((n for n, task in recorded.task.presets.items() if task == recorded.task), ""),
        }
        for name, value in asked.items():
            if value is not None and value != found[name]:
                raise ValueError(
                    f"{name} is {value!r}, the run to resume has {found[name]!r}: continue it with metarl train "
                    f"--resume {value_of('--resume', arguments)}, or start a new run without --resume"
                )
        return recorded
    if task is None and {"-h", "--help"} & set(arguments):
        task = "half_cheetah_dir"  # for an example
    if task is None:
        raise ValueError(f"no task is named: metarl train TASK, one of {', '.join(sorted(TASKS))}")
    learner = asked["learner"] or default_learner(task)
    return presets.make(task, learner, asked["preset"], asked["task-preset"])


def default_learner(task: str) -> str:
    """The learner that a task has presets for, the first; else MAML, or RL² for discrete actions."""
    known = presets.learners(task)
    return known[0] if known else "rl2" if find_preset(task).spec.discrete else "maml"


def choose_all(arguments: Sequence[str], start: Experiment) -> tuple[list[str], Experiment]:
    """Applies the options that pick a part of the learner (``--outer ppo``), and takes them out of the arguments."""
    arguments = list(arguments)
    for name in choices_of(type(start.learner)):
        choice = value_of(f"--{name}", arguments)
        if choice is not None:
            start = replace(start, learner=choose(start.learner, name, choice))
            arguments = without(f"--{name}", arguments)
    return arguments, start


def describe(start: Experiment) -> str:
    """What stands above the options in ``metarl train TASK --help``."""
    task, learner = start.task.name, learner_name(type(start.learner))
    known = ", ".join(presets.find(task, learner)) or "none, these are the learner's defaults"
    picks = "".join(
        f" --{name} {'|'.join(names)} picks the {name} step, whose options are then shown."
        for name, names in choices_of(type(start.learner)).items()
    )
    return (
        f"Trains {learner} on {task}. Experiment presets (--preset): {known}. Task presets (--task-preset): "
        f"{', '.join(start.task.presets) or 'none'}. The defaults shown are those of {start.preset}.{picks}"
    )


def require_distinct_names(start: Experiment) -> None:
    """Options are flat, so that no two fields may share a name.

    Raises:
        ValueError: two do.
    """
    parts: dict[str, Any] = {
        "the experiment": options_of(Train, skip=("experiment",)) | options_of(type(start), skip=("task", "learner")),
        "the learner": options_of(type(start.learner)) | {f"--{name}": "" for name in choices_of(type(start.learner))},
    }
    for owner, options in parts.items():
        if shared := options_of(type(start.task)).keys() & options.keys():
            name = type(start.task).__name__
            raise ValueError(f"{name} has the field {min(shared)}, which {owner} has, too: rename it")


def require_same(recorded: Experiment, asked: Experiment) -> None:
    """Refuses to continue a run as another one.

    Raises:
        ValueError: a field differs that may not.
    """
    before, now = leaves(to_json(recorded)), leaves(to_json(asked))
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name) and name not in CHANGEABLE:
            advice = "leave it out, or start a new run"
            raise ValueError(f"{name} is {now.get(name)!r}, the run to resume has {before.get(name)!r}: {advice}")
