"""The table of a study: ours over seeds, results recorded earlier, and what was published, a line each.

An interval is the 95 % interval of the mean over seeds, by Student's t: of three seeds, 2.5 standard deviations to
each side. Where only the lowest and the highest seed of an earlier result are known, those stand in its place.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from metarl.reports.sheets import markdown_rows
from metarl.runs.studies import Column, Row, Study
from metarl.runs.study_folders import Standing, StudyRun

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t distribution with 1, 2, 3 ... degrees of freedom."""

INTERVALS = (
    "Numbers are means over seeds with the 95 % interval of that mean in brackets (Student's t); one seed has none, a "
    "share's ends at 0 and 100 %. "
    "In parentheses stand the lowest and the highest seed, where no more is known."
)


RECORDED = (
    "Recorded: by earlier versions of this library, whose scripts had other names; the commit is the one that the run "
    "was noted with."
)


class Cell(NamedTuple):
    """A number, with its interval over seeds or else its lowest and highest seed."""

    mean: float
    low: float | None = None
    high: float | None = None
    values: tuple[float, ...] = ()
    """By seed, where they are known."""
    of: str = ""
    """What low and high are: 95 % interval, or range over seeds."""


class Line(NamedTuple):
    """A line of the table."""

    row: str
    label: str
    kind: str
    """ours, recorded, or published (and by what method)."""
    cells: tuple[Cell | None, ...]
    seeds: str
    env_steps: str
    commit: str
    note: str
    """What is not finished, how the numbers were taken, and where they are from."""


def over_seeds(values: Sequence[float], *, share: bool = False) -> Cell:
    """Mean of one value a seed, with its 95 % interval by Student's t; that of a share ends at 0 and 1."""
    mean, count = sum(values) / len(values), len(values)
    if count == 1:
        return Cell(mean, values=tuple(values))
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = T_975[min(count - 1, len(T_975)) - 1] * deviation / math.sqrt(count)
    low, high = (max(0.0, mean - half), min(1.0, mean + half)) if share else (mean - half, mean + half)
    return Cell(mean, low, high, tuple(values), "95 % interval")


def lines(study: Study, runs: Sequence[tuple[StudyRun, Standing]], recorded: Path | None) -> list[Line]:
    """The lines of the study's rows, those of a row together: ours, recorded, published.

    Args:
        runs: how far each run is.
        recorded: a CSV file of earlier results (:func:`read_recorded`), where there is one.
    """
    earlier = read_recorded(recorded, study.columns) if recorded is not None and recorded.exists() else []
    found = []
    for row in study.rows:
        found.append(_ours(study, row, [(run, state) for run, state in runs if run.row.name == row.name]))
        found += [line for line in earlier if line.row == row.name]
        for reported in row.reported:
            cells = tuple(None if x is None else Cell(x) for x in reported.values)
            note = f"{reported.source}: {reported.protocol}"
            kind = f"published, {reported.method}" if reported.method else "published"
            found.append(Line(row.name, row.label, kind, cells, "", reported.env_steps, "", note))
    return found


def _ours(study: Study, row: Row, runs: Sequence[tuple[StudyRun, Standing]]) -> Line:
    done = [state for _, state in runs if state.evaluation is not None]
    cells = []
    for column in study.columns:
        values = [column.read(state.evaluation or {}, state.progress) for state in done]
        known = [value for value in values if value is not None]
        cells.append(over_seeds(known, share=column.percent) if known else None)
    waiting = [f"seed {run.seed}: {state.describe()}" for run, state in runs if not state.done]
    if all(not state.done and not state.iterations for _, state in runs):
        waiting = ["no run has begun"]
    steps = sum(state.env_steps for state in done) / max(1, len(done))
    commits = dict.fromkeys(
        state.commit[:7] + "+" * state.commit.endswith("+changes") for state in done if state.commit
    )
    count = f"{len(done)} of {len(runs)}" if waiting else str(len(done))
    return Line(
        row.name, row.label, "ours", tuple(cells), count, millions(steps), " ".join(commits), ", ".join(waiting)
    )


def read_recorded(path: Path, columns: Sequence[Column]) -> list[Line]:
    """Results of earlier runs: a row of the file for each number, those of one result with the same ``result``.

    Columns of the file: row, result, label, column, seeds, values (by seed, where known), mean, lowest, highest,
    env_steps, minutes (of a run), commit, command, note.

    Raises:
        ValueError: a number that belongs to none of the study's columns.
    """
    names = {column.name: column for column in columns}
    results: dict[tuple[str, str], list[dict[str, str]]] = {}
    with open(path, newline="") as file:
        for number in csv.DictReader(file):
            if number["column"] not in names:
                raise ValueError(f"{path} has a number for {number['column']!r}: use one of {', '.join(names)}")
            results.setdefault((number["row"], number["result"]), []).append(number)
    found = []
    for (row, _), numbers in results.items():
        first = numbers[0]
        by_column = {name: _recorded_cell(number, names[name]) for number in numbers for name in [number["column"]]}
        cells = tuple(by_column.get(name) for name in names)
        steps, commit = first["env_steps"], first["commit"]
        found.append(Line(row, first["label"], "recorded", cells, first["seeds"], steps, commit, _recorded_note(first)))
    return found


def _recorded_note(number: dict[str, str]) -> str:
    minutes = f"{number['minutes']} minutes a run" if number["minutes"] else ""
    return "; ".join(filter(None, [number["note"], minutes, number["command"]]))


def _recorded_cell(number: dict[str, str], column: Column) -> Cell:
    if number["values"]:
        return over_seeds([float(value) for value in number["values"].split()], share=column.percent)
    if not number["lowest"]:
        return Cell(float(number["mean"]))
    return Cell(float(number["mean"]), float(number["lowest"]), float(number["highest"]), of="range over seeds")


def millions(steps: float) -> str:
    """Environment steps as in papers: 24M, 1.2M, 8000."""
    return f"{steps / 1e6:.3g}M" if steps >= 1e5 else f"{steps:.0f}" if steps else ""


def text_of(cell: Cell | None, column: Column) -> str:
    """A cell as it is shown: ``369.0 [250.0, 456.0]``; a number that is not ours, with the digits that it has."""
    if cell is None:
        return ""
    mean, low, high = (_digits(x, column, exact=bool(cell.values)) for x in (cell.mean, cell.low, cell.high))
    unit = " %" if column.percent else ""
    if cell.low is None or cell.low == cell.high:
        return f"{mean}{unit}"  # one seed, or what does not depend on it
    return f"{mean}{unit} ({low} to {high})" if cell.of.startswith("range") else f"{mean}{unit} [{low}, {high}]"


def _digits(x: float | None, column: Column, *, exact: bool) -> str:
    if x is None:
        return ""
    text = f"{100 * x if column.percent else x:.{column.digits}f}"
    return text if exact or "." not in text else text.rstrip("0").rstrip(".")


def headings(study: Study) -> list[str]:
    return ["", "", *(column.name for column in study.columns), "seeds", "env steps", "commit"]


def _cells(study: Study, line: Line) -> list[str]:
    numbers = [text_of(cell, column) for cell, column in zip(line.cells, study.columns, strict=True)]
    return [line.label, line.kind, *numbers, line.seeds, line.env_steps, line.commit]


def notes(study: Study, found: Sequence[Line]) -> list[str]:
    """What stands below the table: a sentence a note."""
    told: dict[tuple[str, str], list[str]] = {}
    for line in found:
        if line.note:
            told.setdefault((line.kind.partition(",")[0], line.note), []).append(line.label)
    own = [study.note] if study.note else []
    recorded = [RECORDED] if any(line.kind == "recorded" for line in found) else []
    about = (f"{'; '.join(dict.fromkeys(labels))} ({kind}): {note}" for (kind, note), labels in told.items())
    return [*own, INTERVALS, *recorded, *about]


def screen(study: Study, found: Sequence[Line]) -> Table:
    table = Table(title=Text(study.title), caption=Text("\n".join(notes(study, found))), caption_justify="left")
    for position, heading in enumerate(headings(study)):
        table.add_column(heading, justify="left" if position < 2 else "right")
    before = None
    for line in found:
        if before not in (None, line.row):
            table.add_section()
        table.add_row(*map(Text, _cells(study, line)), style="bold" if line.kind == "ours" else None)
        before = line.row
    return table


def markdown(study: Study, found: Sequence[Line]) -> str:
    """The table in Markdown, with its notes."""
    body = markdown_rows(headings(study), [_cells(study, line) for line in found])
    return f"### {study.title}\n\n{body}\n\n" + "\n".join(f"- {note}" for note in notes(study, found)) + "\n"


def as_csv(study: Study, found: Sequence[Line]) -> str:
    """A row for each number, unrounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ["row", "label", "kind", "column", "mean", "low", "high", "interval", "values"]
    writer.writerow([*names, "seeds", "env_steps", "commit", "note"])
    for line in found:
        for cell, column in zip(line.cells, study.columns, strict=True):
            number = ["", "", "", "", ""]
            if cell is not None:
                bounds = ["" if x is None else repr(x) for x in (cell.low, cell.high)]
                number = [repr(cell.mean), *bounds, cell.of, " ".join(map(repr, cell.values))]
            elif line.kind != "ours":
                continue
            tail = [line.seeds, line.env_steps, line.commit, line.note]
            writer.writerow([line.row, line.label, line.kind, column.name, *number, *tail])
    return file.getvalue()
