"""``metarl train``: a task, a learner, whose settings to start from, and single fields of them changed."""

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal

import tyro

from metarl import presets, ranks
from metarl.algorithms import learner_name
from metarl.cli.parse import FLAT, choices_of, choose_all, options_of, parse, parts_of, value_of, values_of
from metarl.envs.fields import BadField
from metarl.envs.registry import TASKS, find_preset
from metarl.runs.config import leaves, to_json
from metarl.runs.experiment import CHANGEABLE, Experiment, LearnerT, TaskT
from metarl.runs.folder import RunExists, create_run, load_experiment
from metarl.runs.lockstep import execute_together
from metarl.runs.session import execute
from metarl.runs.supervised import FewShotExperiment
from metarl.runs.tracking import Tracker


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
    start_or_resume: bool = False
    """Begin the run called --name, or continue it where it is there already: the same command, submitted again after
    whatever ended it, goes on. The other options are those that began it."""
    seeds: tuple[int, ...] = ()
    """Train a run of each of these seeds in one process, their worlds stepped together: each has its own folder (--name
    NAME makes NAME-seed0 ...) and is what it would be alone. With --start-or-resume they continue together."""
    track: Literal["none", "wandb"] = "none"
    """Mirror the run to Weights & Biases as it goes (WANDB_MODE=offline keeps it here); the run folder stays the
    record, and a tracker that fails changes nothing."""
    project: str = "metarl"
    """Project there."""
    code: Path | None = None
    """Python file that defines the task, learner or policy, where it is none of this library's; it is run. May be
    given several times."""


@dataclass(frozen=True)
class TrainOnExamples(Train[TaskT, LearnerT]):
    experiment: tyro.conf.OmitArgPrefixes[FewShotExperiment[TaskT, LearnerT]]


def train(arguments: Sequence[str], task: str | None) -> int:
    """Trains ``task`` as the other arguments of ``metarl train`` say; returns the exit code.

    Raises:
        ValueError: an argument that cannot work, or that differs from the run to resume.
    """
    codes, resumed = values_of("--code", arguments), value_of("--resume", arguments)
    recorded = None if resumed is None else load_experiment(Path(resumed), device=value_of("--device", arguments))
    parent = value_of("--init-from", arguments) if recorded is None else None
    start = start_of(arguments, task, recorded, parent)
    chosen, arguments = choose_all(start.learner, arguments)
    start = replace(start, learner=chosen)
    require_distinct_names(start)
    arguments = [start.task.name, *arguments]
    kind: Any = TrainOnExamples if isinstance(start, FewShotExperiment) else Train
    form = kind[type(start.task), type(start.learner)]
    default = form(experiment=start, task=start.task.name, learner=learner_name(type(start.learner)))
    options = parse(form, arguments, default=default, prog="metarl train", description=describe(start), config=FLAT)
    others: list[Path] = []
    if options.seeds:
        alone = of_seeds(options, arguments)
        run, *others = made = [folder_of(one, recorded) for one in alone]
        exit_code = execute_together([one.experiment for one in alone], made)
    else:
        with ranks.joined(options.experiment.device) if ranks.started() else contextlib.nullcontext():
            run = ranks.of_first(lambda: folder_of(options, recorded))
            experiment = replace(options.experiment, device=ranks.own_device(options.experiment.device))
            exit_code = execute_tracked(experiment, run, options.project if options.track == "wandb" else None)
    if exit_code == 0 and os.environ.get("RANK", "0") == "0":
        of_script = any(type(part).__module__ == "__main__" for part in [start.task, *parts_of(start.learner)])
        files = codes or ([sys.argv[0]] if of_script else [])
        code_option = "".join(f" --code {file}" for file in files)
        print(
            f"done: metarl evaluate {run}{code_option} · "
            + ("" if isinstance(start, FewShotExperiment) else f"metarl video {run}{code_option} · ")
            + f"tensorboard --logdir {run.parent}"
            + (f" · likewise {', '.join(map(str, others))}" if others else "")
        )
    return exit_code


def of_seeds(options: Any, arguments: Sequence[str]) -> list[Any]:
    """The options of a run of each of ``seeds``.

    Raises:
        ValueError: an option that does not go with them, or a folder that is there already.
    """
    name, seeds = options.name, " ".join(map(str, options.seeds))
    if value_of("--seed", arguments) is not None:
        raise ValueError(f"seed is given beside seeds {seeds}: use one of them")
    if options.resume is not None:
        raise ValueError(f"seeds is {seeds}: resume continues one run alone, --start-or-resume with --name all of them")
    if options.track != "none":
        raise ValueError(f"seeds is {seeds}: one process tracks one run, leave track out")
    if ranks.started():
        raise ValueError(f"seeds is {seeds}: runs side by side are one process, start them without torchrun")
    if isinstance(options.experiment, FewShotExperiment):
        raise ValueError(f"seeds is {seeds}: tasks of examples have no worlds to step together, start a run of each")
    if len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"seeds is {seeds}: use each seed once")
    names = [None if name is None else f"{name}-seed{seed}" for seed in options.seeds]
    experiments = [replace(options.experiment, seed=seed) for seed in options.seeds]
    for run, experiment in zip(names, experiments, strict=True):  # all, before any folder is made
        if run is None or not (options.runs / run).exists():
            continue
        if not options.start_or_resume:
            raise RunExists(f"{options.runs / run} exists: choose another --name, or continue with --start-or-resume")
        require_same(load_experiment(options.runs / run, device=experiment.device), experiment)
    return [replace(options, experiment=one, name=name) for one, name in zip(experiments, names, strict=True)]


def folder_of(options: Any, recorded: Experiment | None) -> Path:
    """The run folder that ``metarl train`` is to write to, made where it is new.

    Raises:
        ValueError: it cannot be made, or is another experiment's.
    """
    if options.start_or_resume:
        return start_or_find(options.experiment, options.runs, options.name, resume=options.resume)
    if recorded is None:
        return create_run(options.experiment, options.runs, options.name)
    if options.name is not None:
        raise ValueError(f"name is {options.name!r}: a resumed run keeps its own, leave it out")
    require_same(recorded, options.experiment)
    resumed: Path = options.resume
    return resumed


def execute_tracked(experiment: Experiment, run: Path, project: str | None) -> int:
    """Trains, with the run mirrored to a project of Weights & Biases where one is named; returns the exit code."""
    if project is None or ranks.rank() > 0:
        return execute(experiment, run)
    tracker, exit_code = Tracker(experiment, run, lambda line: print(line, file=sys.stderr), project=project), 1
    try:
        exit_code = execute(experiment, run, callbacks=[tracker])
    finally:
        tracker.close(exit_code)
    return exit_code


def start_or_find(experiment: Experiment, runs: Path, name: str | None, *, resume: Path | None = None) -> Path:
    """The run called ``name``, made where there is none.

    Raises:
        ValueError: no name, a name and a run to resume, or a run of that name that is another experiment.
    """
    if resume is not None:
        raise ValueError(f"start_or_resume is asked for beside resume {resume}: use one of them")
    if name is None:
        raise ValueError("start_or_resume needs the run's --name: without one every start is a run of its own")
    if not (runs / name).exists():
        with contextlib.suppress(RunExists):  # another process was faster; the lock tells who goes on
            return create_run(experiment, runs, name)
    require_same(load_experiment(runs / name, device=experiment.device), experiment)
    return runs / name


def start_of(
    arguments: Sequence[str], task: str | None, recorded: Experiment | None, parent: str | None = None
) -> Experiment:
    """The experiment that the options change: a preset, the run to resume, or the one to begin from.

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
    if parent is not None and not any(asked.values()):
        return replace(load_experiment(Path(parent), device=value_of("--device", arguments)), init_from=parent)
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


def describe(start: Experiment) -> str:
    """What stands above the options in ``metarl train TASK --help``."""
    task, learner = start.task.name, learner_name(type(start.learner))
    known = ", ".join(presets.find(task, learner)) or "none, these are the learner's defaults"
    picks = "".join(
        f" --{name} {'|'.join(names)} picks the {name}, whose options are then shown."
        for part in parts_of(start.learner)
        for name, names in choices_of(type(part)).items()
    )
    return (
        f"Trains {learner} on {task}. Experiment presets (--preset): {known}. Task presets (--task-preset): "
        f"{', '.join(start.task.presets) or 'none'}. The defaults shown are those of {start.preset}.{picks}"
    )


def require_distinct_names(start: Experiment) -> None:
    """Options are flat, so that no two fields may share a name.

    Raises:
        BadField: two do.
    """
    experiment = options_of(Train, skip=("experiment",)) | options_of(type(start), skip=("task", "learner"))
    owners = dict.fromkeys(experiment, "the experiment")
    for part in [*parts_of(start.learner), start.task]:
        cls = type(part)
        options = [*options_of(cls, nested=False), *(f"--{name}" for name in choices_of(cls))]
        for option in options:
            if option in owners:
                raise BadField(f"{cls.__name__} has the field {option}, which {owners[option]} has, too: rename it")
        owners |= dict.fromkeys(options, "the learner" if part is start.learner else cls.__name__)


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
