"""What is known without importing torch: tasks, learners, presets and options, from a file.

``python -m metarl.cli.describe`` writes the file anew, as ``make format`` does; a test compares it with the code. It is
not asked in a checkout whose sources are newer than it, nor in a process that has imported the tasks and may know more.
"""

import difflib
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium

PACKAGE = Path(__file__).parent
FILE = PACKAGE / "catalogue.json"
OF_EXPERIMENTS = ("train", "tune")  # verbs that take a task and the options of an experiment
SLACK = 60  # seconds: the files of a fresh clone are of about the same time
NOTES = """
param: numbers that define one task; obs, action: numbers of an observation and an action ("of 5": a choice); steps:
episode length limit; ends: can terminate early; success: whether the task defines it. A task preset is a definition of
the task (--task-preset); experiment presets, by learner, are hyperparameters and a budget (--preset), the first one the
default; a learner without one starts from its own defaults. Tasks of examples (steps "-"): obs and action are the
numbers of an input and of a label; maml and reptile are there the learners of examples of that name.
Other libraries: gymnasium.make("metarl:metarl/HalfCheetahDir-v0", preset="v5"), by the name of a task's class."""


@functools.cache
def content() -> dict[str, Any]:
    """What the file says; empty where it is missing."""
    try:
        known: dict[str, Any] = json.loads(FILE.read_text())
    except (OSError, ValueError):
        return {}
    return known


def load() -> dict[str, Any] | None:
    """What the file says; None where it is missing, or where the code is there to be asked, or newer."""
    return None if not content() or "metarl.envs.registry" in sys.modules or is_stale() else content()


@functools.cache
def is_stale() -> bool:
    """Whether a source of this checkout is newer than the file."""
    written = FILE.stat().st_mtime + SLACK
    checkout = PACKAGE.parent.joinpath("pyproject.toml").is_file()
    folders = (PACKAGE, PACKAGE / "envs")  # a link, which rglob does not follow
    return checkout and any(path.stat().st_mtime > written for folder in folders for path in folder.rglob("*.py"))


def register_tasks() -> None:
    """Makes every task known to Gymnasium as ``metarl/<its class>-v0``; it is imported when one is made."""
    for name, task in content().get("tasks", {}).items():
        identity = f"metarl/{task['class']}-v0"
        if identity not in gymnasium.registry and task.get("worlds", True):
            gymnasium.register(
                identity,
                entry_point="metarl.envs.gymnasium_env:GymnasiumEnv",
                vector_entry_point="metarl.envs.vector_env:TaskVectorEnv",
                kwargs={"tasks": name},
            )


def mistake(verb: str, arguments: Sequence[str], known: dict[str, Any]) -> str | None:
    """What is wrong with the names in a command line, in one sentence with one suggestion; None where all are known.

    Args:
        known: the content of the file, or what it would say now.
    """
    if verb not in known["verbs"]:
        return f"{verb!r} is no verb of metarl: {suggestion(verb, known['verbs'])}"
    options, arguments = dict(known["verbs"][verb]), split(verb, arguments)[0]
    if verb in OF_EXPERIMENTS:
        position, learner = named(verb, arguments, known)
        task = None if position is None else arguments[position]
        if task is not None and task not in known["tasks"]:
            return f"task is {task!r}: {suggestion(task, known['tasks'])}, or name the file that defines it with --code"
        if learner is not None and learner not in known["learners"]:
            return f"learner is {learner!r}: {suggestion(learner, known['learners'])}"
        tasks = [known["tasks"][task]] if task else known["tasks"].values()
        learners = [known["learners"][learner]] if learner else known["learners"].values()
        for part in (*tasks, *learners):
            options |= part["options"]
    for argument in arguments:
        name = option_name(argument)
        if name.startswith("--") and len(name) > 2 and name not in options:
            return f"{name} is no option of metarl {verb}: {suggestion(name, options)}"
    return None


def split(verb: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments, and what ``metarl submit ... --`` is to submit."""
    here = list(arguments).index("--") if verb == "submit" and "--" in arguments else len(arguments)
    return list(arguments[:here]), list(arguments[here + 1 :])


def named(verb: str, arguments: Sequence[str], known: dict[str, Any]) -> tuple[int | None, str | None]:
    """Which argument of ``metarl train`` or ``tune`` is the task, and the learner; None where they are not named.

    The task is the first argument that is neither an option nor an option's value, wherever it stands.
    """
    parts = (
        known["verbs"][verb],
        *(part["options"] for kind in ("learners", "tasks") for part in known[kind].values()),
    )
    kinds = {name: kind for part in parts for name, kind in part.items()}
    position = learner = None
    option, wanted = "", 0  # values that the option may still take
    for here, argument in enumerate(arguments):
        if is_option(argument):
            option, (_, equals, value) = option_name(argument), argument.partition("=")
            wanted = 0 if equals else {"flag": 0, "values": len(arguments)}.get(kinds.get(option, "value"), 1)
            if equals and option == "--learner":
                learner = value
        elif wanted and not (kinds.get(option) == "values" and argument in known["tasks"]):
            wanted -= 1
            learner = argument if option == "--learner" else learner
        else:
            position = here if position is None else position
            wanted = 0
    return position, learner


def is_option(argument: str) -> bool:
    """Whether an argument is no value; negative numbers are values."""
    return argument.startswith("-") and not argument[1:2].isdigit() and argument[1:2] not in ("", ".")


def option_name(argument: str) -> str:
    """``--num_tasks=3`` is ``--num-tasks``."""
    return argument.partition("=")[0].replace("_", "-")


def suggestion(name: str, names: Sequence[str] | dict[str, Any]) -> str:
    """The one name that comes nearest, or all of them where none does and they are few."""
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"perhaps {near[0]}"
    return f"use one of {', '.join(names)}" if len(names) <= 40 else "--help shows them"


def table(known: dict[str, Any]) -> str:
    """Every task with its task presets and dimensions, and the experiment presets by learner."""
    from rich.console import Console
    from rich.table import Table

    found = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("task", "task preset", "param", "obs", "action", "steps", "ends", "success"):
        found.add_column(column, no_wrap=True, justify="left" if column.startswith("task") else "right")
    for name, task in known["tasks"].items():
        for position, (preset, dimensions) in enumerate(task["presets"].items()):
            found.add_row(name if position == 0 else "", preset, *dimensions)
    ours = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("task", "learner", "experiment presets"):
        ours.add_column(column, no_wrap=True)
    for name, task in known["tasks"].items():
        for position, (learner, names) in enumerate(task["experiments"].items()):
            ours.add_row(name if position == 0 else "", learner, ", ".join(names))
    console = Console(width=200, soft_wrap=True)
    with console.capture() as captured:  # names must not be cut; a narrow screen wraps lines
        console.print(found)
        console.print()
        console.print(ours)
        console.print(f"\nlearners: {', '.join(known['learners'])}")
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join(lines) + NOTES
