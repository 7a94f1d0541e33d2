"""progress.csv, TensorBoard events and progress lines, over the lives of a run that stops and goes on."""

import csv
import io
import itertools
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.runs import events as event_files
from metarl.runs.logger import ProgressDisplay, ScalarLog

STEPS = 100  # environment steps an iteration


def live(
    directory: Path,
    first: int,
    last: int,
    *,
    value: float = 0.0,
    late: int = 10**6,
    extra: str = "meta_test/x",
) -> None:
    """One process: iterations ``first`` to ``last`` - 1, with one more metric from iteration ``late`` on."""
    log = ScalarLog(directory, iteration=first, env_steps=STEPS * first)
    for iteration in range(first, last):
        metrics = {"train/loss": value + iteration}
        log.write(iteration, STEPS * (iteration + 1), metrics | ({extra: -1.5} if iteration >= late else {}))
    log.close()


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def lengths(directory: Path) -> set[int]:
    """Of the lines, in cells."""
    with open(directory / "progress.csv", newline="") as file:
        return {len(line) for line in csv.reader(file)}


def events(directory: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


# --- the file


def test_a_row_holds_iteration_steps_and_metrics(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path, iteration=0, env_steps=0)
    log.write(0, 100, {"train/loss": 0.1, "a,b": 1e-30, 'q"': float("nan")})
    log.write(1, 200, {"train/loss": 1 / 3, "a,b": -2.0, 'q"': float("inf")})
    log.close()
    assert rows(tmp_path) == [
        {"iteration": "0", "env_steps": "100", "train/loss": "0.1", "a,b": "1e-30", 'q"': "nan"},
        {"iteration": "1", "env_steps": "200", "train/loss": "0.333333333", "a,b": "-2", 'q"': "inf"},
    ]


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path, iteration=0, env_steps=0)
    for iteration in range(3):
        log.write(iteration, STEPS * (iteration + 1), {"train/loss": 1.0})
        assert len(rows(tmp_path)) == iteration + 1
        assert len(events(tmp_path, "train/loss")) == iteration + 1
    log.close()


def test_a_late_metric_gets_a_column_and_earlier_rows_an_empty_cell(tmp_path: Path) -> None:
    live(tmp_path, 0, 4, late=2)
    assert lengths(tmp_path) == {4}
    assert [row["meta_test/x"] for row in rows(tmp_path)] == ["", "", "-1.5", "-1.5"]
    assert [row["train/loss"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]


def test_a_metric_that_pauses_leaves_an_empty_cell(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path, iteration=0, env_steps=0)
    for iteration, metrics in enumerate([{"a": 1.0, "b": 2.0}, {"b": 3.0}, {"c": 4.0}]):
        log.write(iteration, STEPS * (iteration + 1), metrics)
    log.close()
    assert lengths(tmp_path) == {5}
    assert [(row["a"], row["b"], row["c"]) for row in rows(tmp_path)] == [
        ("1", "2", ""),
        ("", "3", ""),
        ("", "", "4"),
    ]


# --- resuming


@pytest.mark.parametrize("resume_at", [0, 1, 3, 5])
def test_reopened_at_an_iteration_it_drops_what_lies_past_it(tmp_path: Path, resume_at: int) -> None:
    """The first life wrote iterations 0 to 4; the second repeats those past its checkpoint, a 1000 higher."""
    live(tmp_path, 0, 5)
    live(tmp_path, resume_at, 7, value=1000.0)
    losses = [i if i < resume_at else 1000 + i for i in range(7)]
    assert [int(row["iteration"]) for row in rows(tmp_path)] == list(range(7))
    assert [float(row["train/loss"]) for row in rows(tmp_path)] == losses
    assert lengths(tmp_path) == {3}


@pytest.mark.parametrize("resume_at", [0, 1, 3, 5])
def test_tensorboard_drops_what_lies_past_it_too(
    tmp_path: Path, resume_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One event an iteration in the end, none of them of the time that was repeated, in whatever second: TensorBoard
    reads files in the order of their names, in which a process's tenth would come before its ninth."""
    monkeypatch.setattr(event_files, "_NUMBERS", itertools.count(9))
    live(tmp_path, 0, 5)
    live(tmp_path, resume_at, 7, value=1000.0)
    losses = [i if i < resume_at else 1000 + i for i in range(7)]
    assert events(tmp_path, "train/loss") == [(STEPS * (i + 1), loss) for i, loss in enumerate(losses)]


def test_late_columns_survive_a_resume(tmp_path: Path) -> None:
    """Three lives: a column of the first stays while a row has it, and the second brings another one."""
    live(tmp_path, 0, 5, late=3)
    live(tmp_path, 4, 6, late=5, extra="meta_test/y")
    assert lengths(tmp_path) == {5}
    assert [row["meta_test/x"] for row in rows(tmp_path)] == ["", "", "", "-1.5", "", ""]
    assert [row["meta_test/y"] for row in rows(tmp_path)] == ["", "", "", "", "", "-1.5"]
    live(tmp_path, 2, 3)
    assert [int(row["iteration"]) for row in rows(tmp_path)] == [0, 1, 2]
    assert len(lengths(tmp_path)) == 1


def test_a_resumed_run_ends_with_the_file_of_an_undisturbed_one(tmp_path: Path) -> None:
    for name in ("once", "twice"):
        (tmp_path / name).mkdir()
    live(tmp_path / "once", 0, 8, late=2)
    live(tmp_path / "twice", 0, 6, late=2)
    live(tmp_path / "twice", 4, 8, late=2)
    files = [(tmp_path / name / "progress.csv").read_bytes() for name in ("once", "twice")]
    assert files[0] == files[1]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_row_is_dropped(tmp_path: Path, cut: int) -> None:
    """A full disk can cut a row anywhere: iteration 12 must not come back as iteration 1."""
    live(tmp_path, 0, 13)
    path = tmp_path / "progress.csv"
    whole = path.read_bytes()
    assert whole.endswith(b"12,1300,12\r\n")
    path.write_bytes(whole[:-cut])
    live(tmp_path, 12, 14)
    assert [int(row["iteration"]) for row in rows(tmp_path)] == list(range(14))
    assert [row["train/loss"] for row in rows(tmp_path)] == [str(i) for i in range(14)]


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    live(tmp_path, 0, 3, late=1)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert names[0].startswith("events.out.tfevents")
    assert names[1] == "progress.csv"


# --- the progress on screen

METRICS = {
    "meta_train/return_pre": -12.345,
    "meta_train/return_post": 67.891,
    "time/env_steps_per_second": 54321.9,
}


def show(start: int, iterations: range, *, total: int = 1000, terminal: bool = False, width: int = 40) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width)
    display = ProgressDisplay(total, start=start, console=console)
    for iteration in iterations:
        display.update(iteration, METRICS)
    display.close()
    return text.getvalue()


def test_without_a_terminal_every_iteration_is_one_plain_line() -> None:
    """However narrow the console is: a log file has no width."""
    text = show(0, range(3))
    lines = text.splitlines()
    assert len(lines) == 3
    for count, line in enumerate(lines, start=1):
        assert line.startswith(f"iteration {count}/1000  return before -12.35 after 67.89  54,322 steps/s  ETA ")
    assert "".join(lines).isprintable()  # no escape sequences


def test_a_terminal_gets_a_bar_with_the_same_numbers() -> None:
    text = show(0, range(3), terminal=True, width=140)
    assert "\x1b[" in text
    assert "3/1000" in text
    assert "return before -12.35 after 67.89  54,322 steps/s  ETA " in text


def test_the_time_left_is_counted_from_the_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed at 90 of 100; one iteration took 60 s, so 9 are left of 60 s each: 9 minutes."""
    moments = iter([1000.0, 1060.0])
    monkeypatch.setattr("metarl.runs.logger.time.monotonic", lambda: next(moments))
    assert show(90, range(90, 91), total=100).rstrip().endswith("ETA 0:09:00")


@pytest.mark.parametrize(
    ("seconds", "clock"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3661.0, "1:01:01"), (360_000.0, "100:00:00")]
)
def test_the_time_left_is_written_in_hours(monkeypatch: pytest.MonkeyPatch, seconds: float, clock: str) -> None:
    """Two iterations, the first of which took ``seconds``."""
    moments = iter([0.0, seconds])
    monkeypatch.setattr("metarl.runs.logger.time.monotonic", lambda: next(moments))
    assert show(0, range(1), total=2).rstrip().endswith(f"ETA {clock}")


def test_a_notebook_gets_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, line: object) -> None:
            shown[-1] = repr(line)

    def display(line: object, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(repr(line))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    text = io.StringIO()
    for quiet in (False, True):
        bar = ProgressDisplay(1000, start=0, console=Console(file=text, force_jupyter=True, quiet=quiet))
        for iteration in range(3):
            bar.update(iteration, METRICS)
        bar.close()
    assert len(shown) == 1
    assert shown[0].startswith("iteration 3/1000  return before -12.35 after 67.89  54,322 steps/s  ETA ")
    assert text.getvalue() == ""
