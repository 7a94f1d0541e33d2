"""Studies: what is missing runs, what failed is said, nothing runs twice, and the table is right by hand."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from metarl import cli
from metarl.algorithms import learner_name
from metarl.cli.study import Options, main, run, smoke, tiny
from metarl.cli.study_progress import StudyProgress
from metarl.presets import make
from metarl.reports.published import BANDIT_ROWS, BANDITS, MDP_ROWS, MDPS, PUBLISHED, SUCCESS, YU_2021
from metarl.reports.published import PLUS as METAWORLD_PLUS
from metarl.reports.study_table import T_975, as_csv, lines, markdown, over_seeds, read_recorded, text_of
from metarl.runs import study_work
from metarl.runs.folder import create_run
from metarl.runs.studies import Column, Reported, Row, Study, env_steps
from metarl.runs.study_folders import MARK, StudyRun, collect, plan, standing, without_raw
from metarl.runs.study_work import Child, Work, work_off

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
FILES = sorted(path.stem for path in EXPERIMENTS.glob("*.py") if "STUDY = Study(" in path.read_text())
COLUMNS = (Column("before", (("mean", 0, "value"),)), Column("gain", tag="meta_train/adaptation_gain", last=2))
TASK = make("navigation", "maml", "maml2017")
SMALL = replace(tiny(TASK), num_tasks=2, num_threads=1)


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(f"experiment_{name}", EXPERIMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_study(*rows: Row, **changes: object) -> Study:
    tests = ("--tasks", "2", "--steps", "1", "--pretrain-iterations", "0")
    rows = rows or (Row("first", "the first", SMALL, evaluate=tests),)
    return replace(Study("small", "A small study", rows, COLUMNS), **changes)


def write_run(folder: Path, experiment, *, iterations: int, mean: float, commit: str = "abcdef0123") -> None:
    """A run folder as a finished run and the study leave it."""
    create_run(experiment, folder.parent, folder.name)
    (folder / "versions.json").write_text(json.dumps({"git_commit": commit}))
    rows = [f"{k},{100 * (k + 1)},{k}" for k in range(iterations)]
    (folder / "progress.csv").write_text("\n".join(["iteration,env_steps,meta_train/adaptation_gain", *rows]) + "\n")
    protocol = {"algorithm": "MAML", "iterations": iterations}
    record = {"protocol": protocol, "mean": [{"value": mean, "low": 0.0, "high": 0.0}], "returns": [[[1.0]]]}
    (folder / "evaluation.json").write_text(json.dumps(record))
    options = list(small_study().rows[0].evaluate)
    (folder / MARK).write_text(json.dumps({"evaluation": "evaluation.json", "options": options}))


# values


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_study_whose_rows_can_run(name: str) -> None:
    study = load(name).STUDY
    assert study.name == name
    for row in study.rows:
        found = make(row.experiment.task.name, row_learner(row), row.experiment.preset)
        assert type(found.learner) is type(row.experiment.learner)
        assert env_steps(row.experiment) > 0
    assert smoke(study).rows[0].experiment.iterations == 2
    recorded = EXPERIMENTS / "results" / f"{name}.csv"
    if recorded.exists():
        assert {line.row for line in read_recorded(recorded, study.columns)} <= {row.name for row in study.rows}


def row_learner(row: Row) -> str:
    return learner_name(type(row.experiment.learner))


def test_the_studies_that_were_asked_for_are_there() -> None:
    metaworld = {"metaworld_ml1", "metaworld_ml10", "metaworld_ml10_ablations", "metaworld_ml45"}
    rl2 = {"rl2_bandits", "rl2_tabular_mdps", "rl2_half_cheetah"}
    assert set(FILES) == {"field", "maml_icml2017", "promp_estimators", "promp_walkers", *metaworld, *rl2}


def test_finn_2017_stands_beside_its_rows_as_published() -> None:
    for row in load("maml_icml2017").STUDY.rows:
        if row.name == "half_cheetah_vel_pearl":  # what MAML's row is about, by another learner
            continue
        reference = PUBLISHED[row.name, "maml2017"]
        assert [found.values for found in row.reported] == [reference.returns["MAML"], reference.returns["oracle"]]
        assert f"{reference.num_steps:,} steps" in row.reported[0].protocol
        assert ("a hundredth" in row.reported[0].protocol) == (reference.later == 0.01)


def test_duan_2016_stands_beside_its_rows_as_published() -> None:
    methods = {"RL²": "RL2", "RL², greedy": "", "Bayes-optimal": "", "knows the MDP": ""}
    for name, numbers, names in (("rl2_bandits", BANDITS, BANDIT_ROWS), ("rl2_tabular_mdps", MDPS, MDP_ROWS)):
        study = load(name).STUDY
        assert len(study.rows) == len(numbers)
        for row, published in zip(study.rows, numbers.values(), strict=True):
            known = dict(zip(names, published, strict=True))
            expected = tuple(known.get(methods.get(column.name, column.name)) for column in study.columns)
            assert row.reported[0].values == expected
        for row, key in zip(study.rows, numbers, strict=True):
            pulls, arms = key if isinstance(key, tuple) else (key, 5)
            assert row.experiment.episodes == pulls
            assert row.experiment.task.spec.action_dim == arms


def test_metaworld_stands_beside_its_rows_as_published() -> None:
    for name in ("ml10", "ml45"):
        study = load(f"metaworld_{name}").STUDY
        for row, method in ((study.rows[0], "MAML"), (study.rows[1], "RL2")):
            for reported, source in zip(row.reported, (METAWORLD_PLUS, YU_2021), strict=True):
                rate = SUCCESS[name].rates[source][method].removeprefix("~").partition(" %")[0]
                assert reported.values[-1] == pytest.approx(float(rate) / 100)


def test_budgets_are_the_papers() -> None:
    """Half-cheetah direction stays below its paper's 32M."""
    budgets = {
        "navigation": 8e6,
        "half_cheetah_dir": 24e6,
        "half_cheetah_vel": 76e6,
        "half_cheetah_vel_pearl": 76e6 / 79,
        "ant_dir": 368e6,
        "ant_vel": 120e6,
    }
    for row in load("maml_icml2017").STUDY.rows:
        assert env_steps(row.experiment) == pytest.approx(budgets[row.name], rel=0.01)
    assert [env_steps(row.experiment) for row in load("metaworld_ml10").STUDY.rows[:2]] == [20e6, 20e6]


def test_two_rows_of_a_name_and_numbers_without_a_column_are_refused() -> None:
    row = Row("first", "", SMALL)
    with pytest.raises(ValueError, match="rows of small are first, first: give each a name of its own"):
        small_study(row, row)
    with pytest.raises(ValueError, match="first of small reports 1 numbers: give one for each of its 2 columns"):
        small_study(replace(row, reported=(Reported((1.0,), "", ""),)))


def test_only_picks_rows_by_pattern() -> None:
    study = load("rl2_bandits").STUDY
    assert [row.name for row in study.only(["n10_*"]).rows] == ["n10_k5", "n10_k10", "n10_k50"]
    assert study.only([]) == study
    with pytest.raises(ValueError, match="only is 'nothing': rl2_bandits has n10_k5"):
        study.only(["n10_k5", "nothing"])


# tables


def test_intervals_are_students() -> None:
    cell = over_seeds([1.0, 2.0, 6.0])
    assert cell.mean == 3.0
    # deviations -2, -1, 3: variance 14 / 2 = 7; 4.303 sqrt(7 / 3) = 6.573
    assert (cell.low, cell.high) == (pytest.approx(3 - 6.573, abs=1e-3), pytest.approx(3 + 6.573, abs=1e-3))
    assert over_seeds([5.0]) == (5.0, None, None, (5.0,), "")
    assert over_seeds([0.0, 1.0], share=True)[:3] == (0.5, 0.0, 1.0)
    assert np.allclose(T_975, stats.t.ppf(0.975, np.arange(1, len(T_975) + 1)), atol=6e-4)


def test_cells_are_shown_with_their_interval() -> None:
    column, share = Column("return"), Column("success", percent=True, digits=0)
    assert text_of(over_seeds([1.0, 2.0, 6.0]), column) == "3.0 [-3.6, 9.6]"
    assert text_of(over_seeds([0.5]), share) == "50 %"
    assert text_of(None, column) == ""


def test_a_table_has_ours_what_was_recorded_and_what_was_published(tmp_path: Path) -> None:
    reported = Reported((-4.0, None), "A paper", "one run", "8M")
    study = small_study(replace(small_study().rows[0], reported=(reported,)), note="A note.")
    for seed, mean in enumerate((-1.0, -3.0)):
        write_run(tmp_path / f"first-seed{seed}", replace(SMALL, seed=seed), iterations=2, mean=mean)
    create_run(replace(SMALL, seed=2), tmp_path, "first-seed2")
    (tmp_path / "first-seed2" / "progress.csv").write_text("iteration,env_steps\n0,100\n")
    recorded = tmp_path / "recorded.csv"
    head = "row,result,label,column,seeds,values,mean,lowest,highest,env_steps,minutes,commit,command,note\n"
    old, left_out = (
        "first,old,the first,before,3,,-2,-2.5,-1.5,7M,10,1234567,python x.py,\n",
        "second,old,,gain,1,,7,,,,,,,\n",
    )
    recorded.write_text(head + old + left_out)
    found = lines(study, [(one, standing(one)) for one in plan(study, tmp_path, 3)], recorded)

    ours, earlier, published = found
    assert ours.cells == (over_seeds([-1.0, -3.0]), over_seeds([0.5, 0.5]))  # gains 0 and 1, of both iterations
    assert (ours.seeds, ours.env_steps, ours.commit) == ("2 of 3", "200", "abcdef0")
    assert ours.note == "seed 2: 1 of 2 iterations"
    assert earlier.note == "10 minutes a run; python x.py"
    text = markdown(study, found)
    assert "| the first | ours | -2.0 [-14.7, 10.7] | 0.5 | 2 of 3 | 200 | abcdef0 |" in text
    assert "| the first | recorded | -2 (-2.5 to -1.5) |  | 3 | 7M | 1234567 |" in text
    assert "| the first | published | -4 |  |  | 8M |  |" in text
    assert "- the first (published): A paper: one run" in text
    assert "- A note." in text
    rows = list(csv.DictReader(io.StringIO(as_csv(study, found))))
    assert [(row["kind"], row["column"], row["mean"]) for row in rows] == [
        ("ours", "before", "-2.0"),
        ("ours", "gain", "0.5"),
        ("recorded", "before", "-2.0"),
        ("published", "before", "-4.0"),
    ]
    assert rows[0]["values"] == "-1.0 -3.0"
    assert published.seeds == ""


def test_a_recorded_number_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recorded.csv"
    path.write_text("row,result,column\nfirst,old,nothing\n")
    with pytest.raises(ValueError, match="has a number for 'nothing': use one of before, gain"):
        read_recorded(path, COLUMNS)


@pytest.mark.parametrize(
    ("record", "value"),
    [
        ({"success": {"MAML, greedy": {"all": {"end": [{"value": 0.1}, {"value": 0.7}]}}}}, 0.7),
        ({"success": {"MAML": {"all": {"after": {"value": 0.4}}}}}, 0.4),
        ({"success": {"MAML": {"all": {"end": []}}}}, None),
        ({}, None),
    ],
)
def test_a_column_takes_the_first_number_that_is_there(record: dict, value: float | None) -> None:
    column = Column(
        "", (("success", "*, greedy", "all", "end", -1, "value"), ("success", "*", "all", "after", "value"))
    )
    assert column.read({"protocol": {"algorithm": "MAML"}} | record, []) == value


# folders


def test_a_run_counts_whatever_its_folder_is_called(tmp_path: Path) -> None:
    create_run(replace(SMALL, seed=1, preset="by hand", iterations=1), tmp_path, "mine")
    first, second = plan(small_study(), tmp_path, 2)
    assert (first.folder.name, second.folder.name) == ("first-seed0", "mine")


def test_a_folder_of_another_experiment_is_named(tmp_path: Path) -> None:
    create_run(replace(SMALL, num_tasks=3), tmp_path, "first-seed0")
    with pytest.raises(
        ValueError, match=r"first-seed0 is another experiment .num_tasks is 3, the row has 2.: rename it"
    ):
        plan(small_study(), tmp_path, 1)


def test_an_evaluation_counts_for_its_length_and_options_alone(tmp_path: Path) -> None:
    study = small_study()
    write_run(tmp_path / "first-seed0", SMALL, iterations=2, mean=-1.0)
    (one,) = plan(study, tmp_path, 1)
    assert standing(one).describe() == "finished"
    longer = replace(study.rows[0], experiment=replace(SMALL, iterations=3))
    assert standing(one._replace(row=longer)).describe() == "2 of 3 iterations"
    other = replace(study.rows[0], evaluate=("--tasks", "3"))
    assert standing(one._replace(row=other)).evaluation is None


def test_what_is_collected_stands_in_for_the_run_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "first-seed0", SMALL, iterations=2, mean=-1.0)
    (one,) = plan(small_study(), tmp_path / "runs", 1)
    assert collect(one, tmp_path / "kept")
    copy = tmp_path / "kept" / "first-seed0"
    names = {"config.json", "versions.json", "progress.csv", "evaluation.json", MARK}
    assert {path.name for path in copy.iterdir()} == names
    elsewhere = one._replace(folder=tmp_path / "nowhere" / "first-seed0")
    there, here = standing(elsewhere, tmp_path / "kept"), standing(one)
    assert there.evaluation == {"protocol": here.evaluation["protocol"], "mean": here.evaluation["mean"]}
    assert there._replace(evaluation=None, saved=0) == here._replace(evaluation=None, saved=0)
    other = replace(one.row, experiment=replace(SMALL, num_tasks=3))
    assert standing(elsewhere._replace(row=other), tmp_path / "kept").describe() == "not begun"


def test_published_returns_are_not_raw() -> None:
    record = {"returns": [[1.0]], "published": {"returns": {"MAML": [1.0]}}, "comparisons": {"x": {"returns": [[2.0]]}}}
    assert without_raw(record) == {"published": {"returns": {"MAML": [1.0]}}, "comparisons": {"x": {}}}


# processes


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Here(subprocess.Popen):
    """In place of a process that runs ``python -m metarl``: this one does it, before the process is looked at."""

    started = 0

    def __init__(self, command: list[str], *, stdout: Any, **_: Any) -> None:
        assert command[:3] == [sys.executable, "-m", "metarl"]
        Here.started += 1
        self.returncode = 0
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stdout):
            try:
                cli.main(command[3:])
            except SystemExit as exit_request:
                self.returncode = int(exit_request.code or 0)
        stdout.flush()

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    """Children run in this process: it has imported everything."""
    monkeypatch.setattr(study_work, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": Here}))
    monkeypatch.setattr(study_work, "POLL", 0.0)
    monkeypatch.setattr(Here, "started", 0)
    return Here


def test_a_dry_run_says_steps_and_time_and_leaves_nothing(tmp_path: Path) -> None:
    console = quiet()
    options = Options(seeds=2, jobs=2, runs=tmp_path / "runs", dry_run=True)
    assert run(small_study(), options, tmp_path, console) == 0
    # 2 iterations x 2 batches x 2 tasks x 2 episodes x 10 steps
    assert "first-seed1: not begun; 160 env steps, about" in said(console)
    assert "measured now, one short iteration" in said(console)
    assert "2 of 2 runs to do: 320 env steps" in said(console)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_runs_once_and_a_failure_stops_no_other(tmp_path: Path, here: type[Here]) -> None:
    first = small_study().rows[0]
    broken = replace(first, name="broken", evaluate=("--tasks", "0"), experiment=replace(SMALL, num_tasks=3))
    study, console = small_study(broken, first), quiet()
    options = Options(seeds=1, jobs=2, runs=tmp_path / "runs")
    assert run(study, options, tmp_path, console) == 1
    assert "failed: broken-seed0: evaluate ended with 2: error: tasks is 0: use at least 1" in said(console)
    assert "first-seed0 is finished" in said(console)
    (state,) = [standing(one) for one in plan(study.only(["first"]), tmp_path / "runs", 1)]
    assert state.done
    assert "seed 0: to be evaluated" in (tmp_path / "runs" / "table.md").read_text()
    assert (tmp_path / "runs" / "curves.png").stat().st_size > 5000

    assert here.started == 4, "two train, two evaluate"
    again = quiet()
    assert run(study.only(["first"]), options, tmp_path, again) == 0
    assert "0 of 1 runs to do" in said(again)
    assert here.started == 4


def test_progress_is_a_table_on_a_terminal_and_lines_elsewhere(tmp_path: Path) -> None:
    (one,) = plan(small_study(), tmp_path, 1)
    write_run(one.folder, SMALL, iterations=1, mean=0.0)
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=120, force_terminal=terminal)
        work = Work([], num_threads=1, failed={"second-seed0": "train ended with 2: error: no"})
        with open(tmp_path / "log", "w") as log, StudyProgress(work, console) as progress:
            process = subprocess.Popen(["true"])
            work.running.append(Child(one, "train", process, log))
            progress.show(work)
            progress.show(work)
            process.wait()
        text = said(console)
        assert "second-seed0" in text
        assert "train ended with 2: error: no" in text
        assert ("1 of 2 iterations" in text) == terminal, "lines say it once a minute"
        assert text.count("train first-seed0 begins") == (0 if terminal else 1)


def test_a_signal_stops_every_child_with_a_checkpoint_and_the_next_call_goes_on(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    long = replace(SMALL, iterations=100_000, checkpoint_interval=1000)
    row = replace(small_study().rows[0], experiment=long)
    runs = plan(small_study(row), tmp_path, 2)
    children = []

    def stop_when_both_run(work: Work) -> None:
        children[:] = [child.process for child in work.running] or children
        if len(children) == 2 and all(standing(one).iterations >= 2 for one in runs) and not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    stopped: list[bool] = []
    assert work_off(Work(list(runs), num_threads=1), 2, stop_when_both_run) == 128 + signal.SIGTERM
    assert [process.returncode for process in children] == [128 + signal.SIGTERM] * 2
    saved = [standing(one).saved for one in runs]
    assert min(saved) >= 2
    assert all(standing(one).iterations == standing(one).saved for one in runs)

    request.getfixturevalue("here")
    shorter = replace(row, experiment=replace(long, iterations=max(saved) + 1))
    work = Work([one._replace(row=shorter) for one in runs], num_threads=1)
    assert work_off(work, 2, lambda _: None) == 0
    assert len(work.finished) == 2
    assert "continuing" in (runs[0].folder / "train.log").read_text()
    assert standing(work.finished[0]).describe() == "finished"


def test_a_smoke_test_goes_the_whole_path(tmp_path: Path, here: type[Here], capsys: pytest.CaptureFixture[str]) -> None:
    file = EXPERIMENTS / "maml_icml2017.py"
    with pytest.raises(SystemExit, match=r"^0$"):
        main(
            load("maml_icml2017").STUDY,
            str(file),
            ["--smoke", "--only", "navigation", "--device", "cpu", "--runs", str(tmp_path)],
        )
    assert here.started == 2
    assert_whole(tmp_path, capsys.readouterr().out)


def test_processes_are_told_where_a_learner_of_ones_own_is_defined_and_where_to_compute(tmp_path: Path) -> None:
    row = load("metaworld_ml1").STUDY.only(("push_reward_belief",)).rows[0]
    for verb in ("train", "evaluate"):
        words = study_work.command(StudyRun(row, 0, tmp_path), verb, 1, "cuda:1")
        assert words[words.index("--code") + 1] == str(EXPERIMENTS / "reward_belief.py")
        assert words[words.index("--device") + 1] == "cuda:1"
        assert "--device" not in study_work.command(StudyRun(row, 0, tmp_path), verb, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("study", "row"), [("maml_icml2017", "navigation"), ("metaworld_ml1", "push_reward_belief")])
def test_so_does_one_in_processes(study: str, row: str, tmp_path: Path) -> None:
    file = EXPERIMENTS / f"{study}.py"
    arguments = ["--smoke", "--only", row, "--runs", str(tmp_path)]
    found = subprocess.run(
        [sys.executable, str(file), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert_whole(tmp_path, found.stdout, row)


def assert_whole(runs: Path, out: str, row: str = "navigation") -> None:
    assert "SMOKE TEST" in out
    table = (runs / "table.md").read_text()
    numbers = {"navigation": "| 2D navigation | ours | -", "push_reward_belief": "| push, belief by rewards | ours | 0"}
    assert numbers[row] in table
    assert "| published" not in table
    assert {"table.csv", "curves.png", f"{row}-seed0"} <= {path.name for path in runs.iterdir()}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--jobs", "0"], "jobs is 0: use at least 1"),
        (["--seeds", "0"], "seeds is 0: use at least 1"),
        (["--only", "x"], "only is 'x': small has first"),
        (["--device", "gpu"], "device is 'gpu': use cpu, cuda or cuda:0"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_request:
        main(small_study(), str(tmp_path / "small.py"), [*options, "--runs", str(tmp_path / "runs")])
    assert exit_request.value.code == 2
    assert capsys.readouterr().err.strip() == f"error: {sentence}"
    assert list(tmp_path.iterdir()) == []
