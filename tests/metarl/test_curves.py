"""Learning curves: seeds averaged at equal environment steps, and what is drawn of damaged, short and odd runs."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure

from metarl.algorithms.maml import MAML
from metarl.envs.small.navigation import Navigation
from metarl.reports.curves import align, expand, read_scalars
from metarl.reports.figures import learning_curves
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run

TAG = "meta_train/return_post"
HEADER = f"iteration,env_steps,{TAG}"
BASE = Experiment(task=Navigation(), learner=MAML(), preset="maml2017")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What is drawn, in place of its files."""
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    return drawn


def a_run(root: Path, name: str, content: str | bytes | None, *, seed: int = 0) -> Path:
    run = create_run(replace(BASE, seed=seed), root, name)
    if content is not None:
        (run / "progress.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return run


def table(points: dict[int, float | str]) -> str:
    return "\n".join([HEADER, *(f"{k},{steps},{value}" for k, (steps, value) in enumerate(points.items()))]) + "\n"


def curve(points: dict[float, float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(list(points), dtype=float), np.array(list(points.values()), dtype=float)


# --- row 2: seeds are averaged at equal environment steps -------------------------------------------


def test_fault_02_seeds_that_logged_at_different_steps_are_aligned_before_they_are_averaged(
    tmp_path: Path, figures: list[Figure]
) -> None:
    """Both seeds follow the same line, return = 5 + steps / 1000: their mean is that line, wherever they logged.

    Averaged row by row, the first point would be drawn at 7,500.
    """
    each_ten = a_run(tmp_path, "a", table({n: 5 + n / 1000 for n in range(10_000, 110_000, 10_000)}))
    each_five = a_run(tmp_path, "b", table({n: 5 + n / 1000 for n in range(5_000, 105_000, 5_000)}), seed=1)
    learning_curves([each_ten, each_five], tmp_path / "c.png", tags=[TAG])
    mean = figures[0].axes[0].lines[0]
    at = dict(zip(mean.get_xdata().tolist(), mean.get_ydata().tolist(), strict=True))
    assert at[10_000] == pytest.approx(15)
    assert at[100_000] == pytest.approx(105)
    assert list(at) == list(range(10_000, 105_000, 5_000))  # the union of their steps, where both have been


def test_fault_02_the_mean_and_range_of_other_lengths_and_intervals_by_hand() -> None:
    """A: 0 at 0, 10 at 10, 20 at 20. B: 4 at 5, 8 at 15 (so 6 at 10). Common range 5 to 15."""
    found = align([curve({0: 0, 10: 10, 20: 20}), curve({5: 4, 15: 8})])
    assert found is not None
    assert found.env_steps.tolist() == [5, 10, 15]
    assert found.low.tolist() == [4, 6, 8]
    assert found.high.tolist() == [5, 10, 15]
    assert found.mean.tolist() == [4.5, 8, 11.5]


def test_fault_02_runs_of_one_point_are_averaged_where_the_others_pass_it_and_nothing_is_extrapolated() -> None:
    found = align([curve({10: 3}), curve({0: 0, 20: 2})])
    assert found is not None
    assert (found.env_steps.tolist(), found.mean.tolist()) == ([10], [2])
    assert align([curve({10: 3}), curve({20: 2, 30: 1})]) is None


def test_fault_02_seeds_without_a_common_step_are_drawn_and_not_averaged(tmp_path: Path, figures: list[Figure]) -> None:
    runs = [a_run(tmp_path, "a", table({10: 1.0})), a_run(tmp_path, "b", table({20: 2.0, 30: 3.0}), seed=1)]
    learning_curves(runs, tmp_path / "c.png", tags=[TAG])
    (axes,) = figures[0].axes
    assert [line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata())] == [
        [[10, 1]],
        [[20, 2], [30, 3]],
    ]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        "MAML TRPO, 2 runs that share no environment steps"
    ]


def test_fault_02_the_band_is_the_range_of_the_seeds_and_the_legend_says_so(
    tmp_path: Path, figures: list[Figure]
) -> None:
    runs = [a_run(tmp_path, str(k), table({10: k, 20: 3.0 * k}), seed=k) for k in range(3)]
    learning_curves(runs, tmp_path / "c.png", tags=[TAG])
    (axes,) = figures[0].axes
    (band,) = [part for part in axes.collections if isinstance(part, FillBetweenPolyCollection)]
    corners = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
    assert {(10, 0), (10, 2), (20, 0), (20, 6)} == corners
    (text,) = figures[0].legends[0].get_texts()
    assert text.get_text() == "MAML TRPO, mean of 3 runs, band from lowest to highest"


def test_fault_02_a_cell_that_is_not_finite_leaves_its_seed_in_the_mean(tmp_path: Path) -> None:
    run = a_run(tmp_path, "a", table({10: 1.0, 20: "nan", 30: 3.0, 40: "inf", 50: ""}))
    steps, values = read_scalars(run, [TAG])[TAG]
    assert (steps.tolist(), values.tolist()) == ([10, 30], [1, 3])
    with pytest.raises(ValueError, match=r"progress\.csv has no finite value of meta_train/return_post"):
        read_scalars(a_run(tmp_path, "b", table({10: "nan"})), [TAG])


def test_fault_02_rows_that_a_resumed_run_went_back_behind_are_replaced(tmp_path: Path) -> None:
    content = f"{HEADER}\n0,10,1\n1,20,2\n2,30,3\n1,20,5\n2,30,6\n"
    steps, values = read_scalars(a_run(tmp_path, "a", content), [TAG])[TAG]
    assert (steps.tolist(), values.tolist()) == ([10, 20, 30], [1, 5, 6])


# --- row 21: damaged files -----------------------------------------------------------------------

DAMAGED = {
    "no header": ("0,10,1\n1,20,2\n", "damaged header"),
    "renamed column": (f"iteration,steps,{TAG}\n0,10,1\n", "damaged header"),
    "a column twice": (f"{HEADER},{TAG}\n0,10,1,2\n", "damaged header"),
    "extra cells": (f"{HEADER}\n0,10,1\n1,20,2,9\n2,30,3\n", "line 3"),
    "extra cells at the end": (f"{HEADER}\n0,10,1\n1,20,2,9\n", "line 3"),
    "missing cells": (f"{HEADER}\n0,10,1\n1,20\n2,30,3\n", "line 3"),
    "a huge field": (f"{HEADER}\n0,10,{'1' * 200_000}\n", "damaged: field larger"),
    "words": (f"{HEADER}\n0,10,one\n", "could not convert"),
    "steps that are none": (f"{HEADER}\n0,,1\n", "could not convert"),
    "NUL bytes in the middle": (f"{HEADER}\n0,10,1\n".encode() + bytes(20) + b"\n1,20,2\n", "line 3"),
    "a NUL in a number": (f"{HEADER}\n0,10,1".encode() + b"\0\n", "damaged"),
    "other bytes": (b"\xff\xfe\x00" * 9, "damaged"),
    "empty": ("", "is empty"),
    "a header alone": (f"{HEADER}\n", "nothing yet"),
    "gone": (None, "has no progress.csv"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_fault_21_a_damaged_table_is_one_sentence_with_its_name(kind: str, tmp_path: Path) -> None:
    content, said = DAMAGED[kind]
    run = a_run(tmp_path, "broken", content)
    with pytest.raises(ValueError) as error:
        learning_curves([run], tmp_path / "c.png", tags=[TAG])
    assert said in str(error.value)
    assert "progress.csv" in str(error.value)
    assert str(run) in str(error.value)
    assert "\n" not in str(error.value)


def test_fault_21_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would be waited for without end."""
    piped, nested = a_run(tmp_path, "a", None), a_run(tmp_path, "b", None)
    os.mkfifo(piped / "progress.csv")
    (nested / "progress.csv").mkdir()
    for run in (piped, nested):
        with pytest.raises(ValueError, match=r"progress\.csv cannot be read .*no regular file"):
            read_scalars(run, [TAG])


@pytest.mark.parametrize("torn", [b"2,3", bytes(20)], ids=["short", "NUL bytes"])
def test_fault_21_a_torn_last_row_is_left_out_and_the_others_are_kept(torn: bytes, tmp_path: Path) -> None:
    """A full disk tears it, a power cut fills it with zeros."""
    run = a_run(tmp_path, "a", f"{HEADER}\n0,10,1\n1,20,2\n".encode() + torn)
    steps, values = read_scalars(run, [TAG])[TAG]
    assert (steps.tolist(), values.tolist()) == ([10, 20], [1, 2])


# --- row 28: several runs ------------------------------------------------------------------------


def test_fault_28_broken_runs_are_left_out_with_a_sentence_each_and_the_others_are_drawn(
    tmp_path: Path, figures: list[Figure]
) -> None:
    good, broken = a_run(tmp_path, "good", table({10: 1.0, 20: 2.0})), a_run(tmp_path, "broken", "\0")
    (unreadable := a_run(tmp_path, "unreadable", table({10: 1.0}))).joinpath("config.json").write_text("{")
    warned: list[str] = []
    runs = [broken, good, unreadable, tmp_path / "nowhere"]
    learning_curves(runs, tmp_path / "c.png", tags=[TAG], warn=warned.append)
    (axes,) = figures[0].axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[10, 1], [20, 2]]]
    assert [text.split(":")[0] for text in warned] == ["left out"] * 3
    assert [name in text for name, text in zip(("broken", "unreadable", "nowhere"), warned, strict=True)] == [True] * 3
    with pytest.raises(ValueError, match=r"broken.* \(and 1 more runs with nothing to draw\)"):
        learning_curves([broken, unreadable], tmp_path / "c.png", tags=[TAG], warn=warned.append)
    assert len(figures) == 1


def test_fault_28_a_run_of_one_iteration_has_a_marker(tmp_path: Path, figures: list[Figure]) -> None:
    runs = [a_run(tmp_path, "a", table({10: 1.0})), a_run(tmp_path, "b", table({10: 3.0}), seed=1)]
    learning_curves(runs, tmp_path / "c.png", tags=[TAG])
    learning_curves([a_run(tmp_path, "c", table({10: 1.0, 20: 2.0}))], tmp_path / "c.png", tags=[TAG])
    assert [line.get_marker() for line in figures[0].axes[0].lines] == ["o", "o", "o"]
    assert [line.get_marker() for line in figures[1].axes[0].lines] == [""]  # not on every line


def test_fault_28_a_folder_of_runs_stands_for_its_runs(tmp_path: Path, figures: list[Figure]) -> None:
    root = tmp_path / "runs"
    runs = [a_run(root, name, table({10: 1.0}), seed=k) for k, name in enumerate(("b", "a"))]
    a_run(runs[0], "pretrained", table({10: 9.0}))  # a comparison inside a run is none of them
    (root / "notes").mkdir()
    assert expand([root]) == [runs[1], runs[0]]
    assert expand([runs[0], root, runs[0]]) == [runs[0], runs[1]]
    assert expand([tmp_path / "nowhere"]) == [tmp_path / "nowhere"]
    learning_curves([root], tmp_path / "c.png", tags=[TAG])
    assert figures[0].axes[0].lines[0].get_label() == "MAML TRPO, mean of 2 runs, band from lowest to highest"
    with pytest.raises(ValueError, match="notes is no run folder"):
        learning_curves([root / "notes"], tmp_path / "c.png", tags=[TAG])


# --- row 29: names are text ----------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["$x$", r"$\frac{$", "a$", "[/bold]", "%s {0}"])
def test_fault_29_a_name_is_no_formula(preset: str, tmp_path: Path) -> None:
    runs = [create_run(replace(BASE, preset=name), tmp_path, f"run{k}") for k, name in enumerate((preset, "other"))]
    for run in runs:
        (run / "progress.csv").write_text(table({10: 1.0}))
    picture = tmp_path / "$x$ 100%" / "$\\frac{$ ü [/b].png"
    learning_curves(runs, picture, tags=[TAG])
    assert picture.read_bytes().startswith(b"\x89PNG")
