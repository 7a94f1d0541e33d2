"""A search is a function of its settings: whoever works on it, and whoever dies over it."""

import csv
import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from metarl import cli
from metarl.envs.fields import BadField
from metarl.presets import spaces
from metarl.runs.lock import InUse, run_lock
from metarl.search import worker
from metarl.search.dimensions import Choice, Float, Int, parse
from metarl.search.halving import Stage, rung_lengths, stage

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = ["navigation", "--learner", "maml", "--num-tasks", "2", "--num-envs", "2", "--episodes", "2", "--horizon", "5"]
TINY += ["--iterations", "4", "--num-threads", "1", "--outer", "ppo", "--chunk-samples", "1000"]
SEARCH = ["--trials", "5", "--cohort", "3", "--keep", "2", "--last", "1", "--space", "maml"]


def tune(runs: Path, *options: str) -> int:
    try:
        cli.main(["tune", *TINY, *SEARCH, "--runs", str(runs), "--name", "s", *options])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def curve(run: Path) -> list[dict[str, str]]:
    with open(run / "progress.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """An undisturbed search by one worker."""
    runs = tmp_path_factory.mktemp("search")
    assert tune(runs) == 0
    return runs / "s"


# --- rungs ---------------------------------------------------------------------------------------


def test_each_rung_is_keep_times_as_long_as_the_one_before() -> None:
    assert rung_lengths(27, 3, 3) == (3, 9, 27)
    assert rung_lengths(100, 3, 3) == (12, 34, 100)
    assert rung_lengths(2, 5, 4) == (1, 2)  # those that coincide are one
    assert rung_lengths(10, 1, 3) == (10,)


def test_a_cohort_by_hand() -> None:
    """Four trials, half of which go on: the best two of the first rung, the earlier one of equals."""
    assert stage({0: [], 1: [3.0], 2: [1.0], 3: [2.0]}, 3, 2) == Stage(0, (0, 1, 2, 3), ())
    assert stage({0: [2.0], 1: [3.0], 2: [1.0], 3: [2.0]}, 3, 2) == Stage(1, (0, 1), ())
    assert stage({0: [2.0, 5.0], 1: [3.0], 2: [1.0], 3: [2.0]}, 3, 2) == Stage(1, (0, 1), ())
    assert stage({0: [2.0, 5.0], 1: [3.0, 4.0], 2: [1.0], 3: [2.0]}, 3, 2) == Stage(2, (0,), ())
    assert stage({0: [2.0, 5.0, 6.0], 1: [3.0, 4.0], 2: [1.0], 3: [2.0]}, 3, 2) == Stage(3, (), (0,))


def test_what_diverged_never_goes_on() -> None:
    assert stage({0: [-math.inf], 1: [-math.inf], 2: [1.0], 3: [-math.inf]}, 2, 2).training == (2,)
    assert stage({0: [-math.inf], 1: [-math.inf]}, 2, 2) == Stage(2, (), ())


# --- spaces --------------------------------------------------------------------------------------

KINDS = {"inner_lr": 0.1, "epochs": 5, "outer": "trpo", "hidden_sizes": (64, 64), "learn_inner_lr": False}


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("inner_lr=0.01:1:log", Float(0.01, 1.0, log=True)),
        ("inner-lr=1:2", Float(1.0, 2.0)),
        ("epochs=1:64:log", Int(1, 64, log=True)),
        ("epochs=1,5", Choice((1, 5))),
        ("outer=trpo,ppo", Choice(("trpo", "ppo"))),
        ("hidden_sizes=64x64,100", Choice(((64, 64), (100,)))),
        ("learn_inner_lr=True,False", Choice((True, False))),
        ("inner_lr=", None),
    ],
)
def test_a_dimension_is_read_as_it_is_written(text: str, dimension: Any) -> None:
    assert parse(text, KINDS)[1] == dimension


@pytest.mark.parametrize("text", ["inner_lr", "inner_lr=1", "inner_lr=2:1", "inner_lr=0:1:log", "epochs=1:a", "x=1:2"])
def test_what_is_no_dimension_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=rf"vary is '{text}'"):
        parse(text, KINDS)


def test_one_choice_is_none() -> None:
    with pytest.raises(BadField, match="options"):
        Choice((1,))


# --- the search ----------------------------------------------------------------------------------


def test_the_best_half_goes_on_and_the_rest_is_pruned(whole: Path) -> None:
    rows = table(whole)
    assert len(rows) == 5
    rungs = [f"meta_train/return_post at {rung}" for rung in (1, 2, 4)]
    for cohort, survivors in ((rows[:3], 1), (rows[3:], 1)):
        first = [float(row[rungs[0]]) for row in cohort]
        farther = [row for row in cohort if row[rungs[1]]]
        assert len(farther) == survivors
        assert float(farther[0][rungs[0]]) == max(first)
        assert [row["state"] for row in cohort].count("complete") == survivors
    assert rows[0]["inner_lr"] == "0.5"  # the preset itself comes first
    assert float(rows[0]["learning_rate"]) == 1e-3
    assert len({row["inner_lr"] for row in rows}) == 5
    assert (whole / "importance.png").stat().st_size > 5000


def test_the_values_are_those_of_the_runs_and_rungs_are_exact_resumes(whole: Path, tmp_path: Path) -> None:
    """The command that is printed for the best trial trains its curve in one piece."""
    best = max(table(whole), key=lambda row: float(row["meta_train/return_post at 4"] or -math.inf))
    run = whole / f"trial-{int(best['trial']):04d}-seed0"
    rows = curve(run)
    assert [float(best[f"meta_train/return_post at {k}"]) for k in (1, 2, 4)] == [
        float(rows[k - 1]["meta_train/return_post"]) for k in (1, 2, 4)
    ]
    command = printed(whole.parent)
    cli.main([*shlex.split(command)[1:], "--runs", str(tmp_path), "--name", "again"])
    assert curve(tmp_path / "again") == rows


def printed(runs: Path) -> str:
    """The command that ``--show`` prints."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        tune(runs, "--show")
    return said.getvalue().splitlines()[-1].partition(": ")[2]


class Killed(BaseException):
    pass


def test_a_killed_workers_trial_is_taken_up_again_and_nothing_else_changes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that die in every third run, at its first iteration; each successor goes on where it died."""
    calls = []

    def dies(experiment: Any, run: Path, *, console: Any, callbacks: Any) -> int:
        calls.append(run)

        def kill(*_: object) -> None:
            raise Killed

        return execute(experiment, run, console=console, callbacks=[kill] if len(calls) % 3 == 0 else callbacks)

    execute = worker.execute
    monkeypatch.setattr(worker, "execute", dies)
    deaths = 0
    while True:
        try:
            assert tune(tmp_path) == 0
            break
        except Killed:
            deaths += 1
    assert deaths >= 2
    assert table(tmp_path / "s") == table(whole)


def test_a_run_in_other_hands_is_left_to_them(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trial 0 is held until all else of its rung is done; the worker then waits, and does it once it is free."""
    assert tune(tmp_path, "--hours", "1e-9") == 75  # proposes, and has no time for more
    folder, held = tmp_path / "s", tmp_path / "s" / "trial-0000-seed0"
    held.mkdir()
    lock = run_lock(held)
    lock.__enter__()
    waited = []

    def wait() -> None:
        waited.append(True)
        assert not (folder / "trial-0003-seed0").exists()
        lock.__exit__(None, None, None)
        for path in held.iterdir():
            path.unlink()
        held.rmdir()

    monkeypatch.setattr(worker, "wait", wait)
    assert tune(tmp_path) == 0
    assert waited == [True]
    assert "in another worker's hands" in capsys.readouterr().out
    assert table(folder) == table(whole)


def test_a_search_is_joined_by_the_command_that_began_it_alone(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(whole.parent, "--keep", "3") == 2
    assert "keep is 3, the search to join has 2" in capsys.readouterr().err
    assert tune(whole.parent, "--inner-lr", "0.3") == 2
    assert "the search to join has" in capsys.readouterr().err
    assert tune(whole.parent, "--vary", "nothing=1:2") == 2
    assert "there is no option nothing to vary" in capsys.readouterr().err


def test_the_search_is_locked_for_moments_alone(whole: Path) -> None:
    with run_lock(whole):
        pass
    with pytest.raises(InUse), run_lock(whole), run_lock(whole):
        pass


def test_every_space_names_options_that_its_learner_has() -> None:
    from metarl import presets
    from metarl.cli.variation import all_options

    for learner, space in spaces.SPACES.items():
        kinds = all_options(presets.make("navigation", learner))
        assert set(space) - set(kinds) <= {"max_kl", "damping"}, learner  # ProMP's outer step is PPO's


def test_a_search_on_examples_goes_by_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tune", "sinusoid", "--learner", "maml", "--vary", "learning_rate=1e-4:1e-2:log", "--trials", "2"]
    arguments += ["--iterations", "2", "--updates", "1", "--num-tasks", "2", "--eval-interval", "0", "--rungs", "1"]
    arguments += ["--num-threads", "1", "--last", "1", "--runs", str(tmp_path), "--name", "s"]
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert "validation_interval is 0: a search on examples compares trials by validation" in capsys.readouterr().err
    cli.main([*arguments, "--validation-interval", "1", "--validation-tasks", "3"])
    rows = table(tmp_path / "s")
    assert len(rows) == 2
    assert all(float(row["validation/score at 2"]) < 0 for row in rows)  # minus the error
