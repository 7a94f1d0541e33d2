"""A run mirrored to Weights & Biases: settings, metrics, plots and videos, live or afterwards, online or offline.

The run folder is the record, this a copy of it. So nothing here may end a run or change it: whatever fails costs one
line, and the run goes on without.
"""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from metarl.runs import table
from metarl.runs.experiment import Experiment
from metarl.runs.files import read_file, write_whole
from metarl.runs.hparams import settings_of
from metarl.types import Metrics

FILE = "wandb.json"  # in a run folder: which run it is there
MOST_BYTES = 1 << 16
STEP = "env_steps"
PICTURES, FILMS = (".png",), (".mp4", ".gif", ".webm")


class Tracker:
    """A callback of a run: sends each iteration's row of ``progress.csv``, against environment steps."""

    def __init__(
        self, experiment: Experiment, run: Path, warn: Callable[[str], None], *, project: str = "metarl"
    ) -> None:
        self._run, self._warn = run, warn
        self._there: Any = None
        with self._harmless():
            self._there = begin(experiment, run, project)

    def __call__(self, iteration: int, metrics: Metrics) -> None:
        with self._harmless():
            self._send(table.newest_row(self._run))

    def mirror(self, rows: Iterator[dict[str, str]]) -> None:
        """Sends rows that were recorded earlier."""
        for row in rows:
            with self._harmless():
                self._send(row)

    def close(self, exit_code: int = 0) -> None:
        """Sends what there is to look at, and ends."""
        with self._harmless():
            self._send_media()
        with self._harmless():
            if self._there is not None:
                self._there.finish(exit_code=exit_code)
        self._there = None

    def _send(self, row: dict[str, str]) -> None:
        if self._there is not None:
            self._there.log({name: float(value) for name, value in row.items() if value})

    def _send_media(self) -> None:
        if self._there is None:
            return
        import wandb

        summary = evaluated(self._run)
        if summary:
            self._there.summary.update(summary)
        for path in sorted(self._run.glob("**/*")):
            if "wandb" in path.relative_to(self._run).parts or path.is_symlink():
                continue
            name = f"media/{path.relative_to(self._run).with_suffix('')}"
            if path.suffix in PICTURES:
                self._there.log({name: wandb.Image(str(path))})
            elif path.suffix in FILMS:
                kind: Any = path.suffix[1:]
                self._there.log({name: wandb.Video(str(path), format=kind)})

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, it is the tracker's
            self._there = None
            with suppress(OSError):  # of a closed terminal
                self._warn(f"wandb: {_said(error)}; the run goes on without, metarl track {self._run} sends it later")


def begin(experiment: Experiment, run: Path, project: str) -> Any:
    """The run there, always the same one for a folder.

    Raises:
        ImportError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ImportError("it is not installed (pip install 'metarl-toolkit[track]')") from error
    try:
        identity: dict[str, str] = json.loads(read_file(run / FILE, MOST_BYTES))
        name, project = str(identity["id"]), str(identity["project"])
    except FileNotFoundError:
        name = secrets.token_hex(8)
        write_whole(run / FILE, json.dumps({"id": name, "project": project}).encode() + b"\n")
    there = wandb.init(
        project=project,
        id=name,
        name=run.name,
        resume="allow",
        dir=str(run),
        config=settings_of(experiment),
        settings=wandb.Settings(silent=True, console="off", init_timeout=60),
    )
    there.define_metric(STEP, hidden=True)
    there.define_metric("*", step_metric=STEP)
    return there


def evaluated(run: Path) -> dict[str, float]:
    """Single numbers of the newest ``evaluation.json``, by their path."""
    files = sorted(run.glob("evaluation*.json"), key=lambda path: path.stat().st_mtime_ns)
    found = numbers(json.loads(read_file(files[-1], table.MOST_BYTES)), "evaluation") if files else {}
    return found


def numbers(record: Any, prefix: str) -> dict[str, float]:
    if isinstance(record, dict):
        parts = [numbers(value, f"{prefix}/{key}") for key, value in record.items()]
        return {path: value for part in parts for path, value in part.items()}
    return {prefix: float(record)} if isinstance(record, int | float) else {}


def _said(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
