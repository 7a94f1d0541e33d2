"""What is known without importing torch: tasks, learners, presets and options, from a file.

``python -m metarl.cli.describe`` writes the file anew, as ``make format`` does; a test compares it with the code. In a
checkout whose sources are newer than it, nothing is refused or listed from it.
"""

import difflib
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium

PACKAGE = Path(__file__).parent
FILE = PACKAGE / "catalogue.json"
SLACK = 60  # seconds: the files of a fresh clone are of about the same time
NOTES = """
param: numbers that define one task; obs, action: numbers of an observation and an action ("of 5": a choice); steps:
episode length limit; ends: can terminate early; success: whether the task defines it. A task preset is a definition of
the task (--task-preset); experiment presets, by learner, are hyperparameters and a budget (--preset), the first one the
default; a learner without one starts from its own defaults.
Other libraries: gymnasium.make("metarl:metarl/HalfCheetahDir-v0", preset="v5"), by the name of a task's class."""


@functools.cache
def content() -> dict[str, Any]:
    """What the file says; empty where it is missing."""
    try:
        known: dict[str, Any] = json.loads(FILE.read_text())
    except (OSError, ValueError):
        return {}
    return known


@functools.cache
def load() -> dict[str, Any] | None:
    """What the file says; None where it is missing or older than a source of this checkout."""
    if not content():
        return None
    written = FILE.stat().st_mtime + SLACK
    checkout = PACKAGE.parent.joinpath("pyproject.toml").is_file()
    folders = (PACKAGE, PACKAGE / "envs")  # a link, which rglob does not follow
    if checkout and any(path.stat().st_mtime > written for folder in folders for path in folder.rglob("*.py")):
        return None
    return content()


def register_tasks() -> None:
    """Makes every task known to Gymnasium as ``metarl/<its class>-v0``; it is imported when one is made."""
    for name, task in content().get("tasks", {}).items():
        identity = f"metarl/{task['class']}-v0"
        if identity not in gymnasium.registry:
            gymnasium.register(
                identity,
                entry_point="metarl.envs.gymnasium_env:GymnasiumEnv",
                vector_entry_point="metarl.envs.vector_env:TaskVectorEnv",
                kwargs={"tasks": name},
            )


def mistake(verb: str, arguments: Sequence[str]) -> str | None:
    """What is wrong with the names in a command line, in one sentence with one suggestion; None where all are known."""
    known = load()
    if known is None:
        return None
    if verb not in known["verbs"]:
        return f"{verb!r} is no verb of metarl: {suggestion(verb, known['verbs'])}"
    if "--code" in {argument.partition("=")[0] for argument in arguments}:
        return None  # whose tasks have options of their own
    options = dict(known["verbs"][verb])
    if verb == "train":
        task, learner = named(arguments, known)
        if task is not None and task not in known["tasks"]:
            return f"task is {task!r}: {suggestion(task, known['tasks'])}, or name the file that defines it with --code"
        if learner is not None and learner not in known["learners"]:
            return f"learner is {learner!r}: {suggestion(learner, known['learners'])}"
        tasks = [known["tasks"][task]] if task else known["tasks"].values()
        learners = [known["learners"][learner]] if learner else known["learners"].values()
        for part in (*tasks, *learners):
            options |= part["options"]
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name.startswith("--") and len(name) > 2 and name not in options:
            return f"{name} is no option of metarl {verb}: {suggestion(name, options)}"
    return None


def named(arguments: Sequence[str], known: dict[str, Any]) -> tuple[str | None, str | None]:
    """Task and learner of the arguments of ``metarl train``, where they name them."""
    flags = {
        name
        for part in (known["verbs"]["train"], *(part["options"] for part in known["learners"].values()))
        for name, kind in part.items()
        if kind == "flag"
    }
    task = learner = None
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == "--learner":
            learner = argument
        elif argument.startswith("--learner="):
            learner = argument.partition("=")[2]
        value = before.startswith("--") and "=" not in before and before not in flags
        if not argument.startswith("-") and not value and (before == "" or argument in known["tasks"]):
            task = argument
    return task, learner


def suggestion(name: str, names: Sequence[str] | dict[str, Any]) -> str:
    """The one name that comes nearest, or all of them where none does and they are few."""
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"perhaps {near[0]}"
    return f"use one of {', '.join(names)}" if len(names) <= 40 else "--help shows them"


def listing() -> str | None:
    """What ``metarl list`` prints, or None where the catalogue is stale."""
    known = load()
    return None if known is None else table(known)


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
