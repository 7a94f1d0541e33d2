"""Where an evaluation is kept: its record, a picture and TensorBoard curves, under a name that is free."""

import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    names = evaluation_names()
    while True:
        stem = folder / next(names)
        taken = [stem, stem.with_suffix(".png"), path := stem.with_suffix(".json")]
        if any(os.path.lexists(other) for other in taken):
            continue
        try:
            with open(path, "x") as file:  # another evaluation may have just taken the name; links are not followed
                file.write(json.dumps(record) + "\n")
            break
        except FileExistsError:
            continue
    log_curves(stem, record)
    with open(stem.with_suffix(".png"), "xb") as picture:
        adaptation_figure(record, picture)
    return path


def evaluation_names() -> Iterator[str]:
    """evaluation, evaluation-2, evaluation-3 ...: a later one replaces none."""
    yield "evaluation"
    yield from (f"evaluation-{number}" for number in itertools.count(2))


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
