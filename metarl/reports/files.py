"""Where an evaluation is kept: its record, a picture and TensorBoard curves, under a name that is free."""

import itertools
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from metarl.reports.figures import adaptation_figure
from metarl.runs.events import EventFile


def require_writable(folder: Path) -> Path:
    """Makes the folder where there is none, and returns it.

    Raises:
        ValueError: it cannot be made, or no file in it can.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another folder with --out") from error


def write_evaluation(folder: Path, record: dict[str, Any]) -> Path:
    """Writes the record, its picture and its TensorBoard curves under the first free name; the path of the record."""
    path = write_record(folder, "evaluation", record, partial(adaptation_figure, record))
    log_curves(path.with_suffix(""), record)
    return path


def write_record(folder: Path, name: str, record: dict[str, Any], draw: Callable[[IO[bytes]], None]) -> Path:
    """Writes a record and its picture as name, name-2, name-3 ...: a later one replaces none; the record's path."""
    for number in itertools.count(1):
        stem = folder / (name if number == 1 else f"{name}-{number}")
        taken = [stem, stem.with_suffix(".png"), path := stem.with_suffix(".json")]
        if any(os.path.lexists(other) for other in taken):
            continue
        try:
            with open(path, "x") as file:  # another process may have just taken the name; links are not followed
                file.write(json.dumps(record) + "\n")
        except FileExistsError:
            continue
        with open(stem.with_suffix(".png"), "xb") as picture:
            draw(picture)
        return path
    raise AssertionError("numbers have an end")


def log_curves(folder: Path, record: dict[str, Any]) -> None:
    """``meta_test/adaptation_curve``: mean return over inner steps or episodes, in a TensorBoard run of its own.

    Where the task defines success, so are the measures of each policy and kind of task:
    ``meta_test/<policy>/<kind>/end``, ``last_50``, ``any``, ``return``, ``steps_to_success``.
    """
    with EventFile(folder) as writer:
        for step, value in enumerate(record["mean"]):
            writer.add_scalar("meta_test/adaptation_curve", value["value"], step)
        for policy, kinds in record["success"].items():
            policy = policy.replace(", ", "_")
            for kind, row in kinds.items():
                curves = row | {"end": [value["value"] for value in row["end"]]}
                for measure in ("end", "last_50", "any", "return", "steps_to_success"):
                    for step, value in enumerate(curves[measure]):
                        if value is not None:
                            writer.add_scalar(f"meta_test/{policy}/{kind}/{measure}", value, step)
