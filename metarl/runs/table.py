"""``progress.csv``: what is written to it, and what can be kept of it where it is damaged."""

import contextlib
import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from metarl.runs.files import open_regular, read_file, set_aside

NAME = "progress.csv"
MOST_BYTES = 1 << 30
MOST_OF_ROW = 1 << 16
KEYS = ("iteration", "env_steps")

Row = dict[str, str]


def written(columns: Sequence[str], rows: Sequence[Row], *, header: bool) -> bytes:
    """Lines of CSV; a cell that a row lacks is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def num_recorded(directory: Path) -> int:
    """Iterations that a run's ``progress.csv`` holds, roughly: its lines."""
    try:
        return max(0, len(read_file(directory / NAME, MOST_BYTES).splitlines()) - 1)
    except OSError:
        return 0


def newest_row(directory: Path) -> Row:
    """The last row, without reading what lies before it; empty where there is none.

    Raises:
        OSError: there is no such file.
    """
    with open(open_regular(directory / NAME, os.O_RDONLY), "rb") as file:
        header = file.readline(MOST_OF_ROW)
        file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - MOST_OF_ROW))
        last = file.read(MOST_OF_ROW).splitlines()[-1:]
    cells = [_cells(line.decode(errors="replace").strip()) for line in (header, *last)]
    return dict(zip(*cells, strict=False)) if len(cells) == 2 else {}


def recover(path: Path, iteration: int, warn: Callable[[str], None]) -> tuple[list[str], list[Row]]:
    """The columns, and the rows before ``iteration`` that are whole.

    A last line past the checkpoint may be torn, by a kill or a full disk. Anything else is damage: it costs one line to
    ``warn``, and the file as it was is kept beside the new one.
    """
    try:
        columns, rows, fault = parse(read_file(path, MOST_BYTES), iteration)
    except FileNotFoundError:
        columns, rows, fault = [], [], "is gone"
    except OSError as error:
        columns, rows, fault = [], [], f"cannot be read ({error.strerror})"
    if len(rows) < iteration and not fault:
        fault = "lacks rows"
    if fault and (iteration or fault != "is gone"):
        what = f"{path} {fault}: {len(rows)} of the {iteration} iterations so far are kept"
        with contextlib.suppress(OSError):  # gone
            what += f", and the file as it was is {set_aside(path).name}"
        warn(what)
    return columns, rows


def parse(raw: bytes, iteration: int) -> tuple[list[str], list[Row], str]:
    """Columns and whole rows before ``iteration``, and what is wrong with the rest, if anything is."""
    try:
        lines = list(csv.reader(io.StringIO(raw.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        lines = [_cells(line) for line in raw.decode(errors="replace").splitlines()]
    if not lines:
        return [], [], "is empty" if iteration else ""
    columns, fault = lines[0], ""
    rows: list[Row] = []
    if not set(KEYS) <= set(columns) or len(set(columns)) < len(columns):
        return [], [], "has no header with " + " and ".join(KEYS)
    for number, cells in enumerate(lines[1:], start=2):
        row = dict(zip(columns, cells, strict=False))
        expected = int(rows[-1]["iteration"]) + 1 if rows else 0
        if len(cells) == len(columns) and all(_is_count(row[key]) for key in KEYS):
            if int(row["iteration"]) >= iteration:
                continue
            if int(row["iteration"]) >= expected:
                rows.append(row)
                continue
        if number < len(lines) or len(rows) < iteration:
            fault = fault or f"is damaged in line {number}"
    return columns, rows, fault


def _cells(line: str) -> list[str]:
    """Of one line; none where even that cannot be read."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []


def _is_count(cell: str) -> bool:
    return cell.isascii() and cell.isdigit() and len(cell) < 19
