"""The light front of ``metarl``: answers without torch, one suggestion, a catalogue that says what the code does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metarl import catalogue, cli
from metarl.algorithms import ALGORITHMS
from metarl.cli.describe import describe
from metarl.envs.registry import TASKS

LIGHT = """
import sys
sys.argv[0] = "metarl"
from metarl.cli import main
code = 0
try:
    main(sys.argv[1:])
except SystemExit as exit_request:
    code = exit_request.code
heavy = {"torch", "mujoco", "tyro", "matplotlib", "metaworld"} & set(sys.modules)
print("loaded", sorted(heavy), code)
"""


def call_light(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, timeout=120)


def test_the_catalogue_says_what_the_code_says() -> None:
    """``python -m metarl.cli.describe`` writes it anew."""
    found = json.loads(json.dumps(describe()))
    rooms = ("metarl.envs.", "metarl.fewshot.")  # not other tests'
    ours = {name for name, task in TASKS.items() if task.__module__.startswith(rooms)}
    found["tasks"] = {name: task for name, task in found["tasks"].items() if name in ours}
    assert json.loads(catalogue.FILE.read_text()) == found


def test_the_catalogue_is_not_asked_where_the_tasks_are_imported() -> None:
    assert catalogue.load() is None


def test_the_catalogue_is_stale_where_a_source_is_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = catalogue.FILE.stat().st_mtime
    copy = tmp_path / "metarl"
    (copy / "envs").mkdir(parents=True)
    (copy / "a.py").touch()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(catalogue, "PACKAGE", copy)
    stale = catalogue.is_stale.__wrapped__
    os.utime(copy / "a.py", (written + 2 * catalogue.SLACK,) * 2)
    assert stale()
    os.utime(copy / "a.py", (written,) * 2)
    assert not stale()
    os.utime(copy / "a.py", (written + 2 * catalogue.SLACK,) * 2)
    (tmp_path / "pyproject.toml").unlink()  # installed: sources have the time of the installation
    assert not stale()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "usage: metarl VERB ..."),
        ([], 2, "usage: metarl VERB ..."),
        (["list"], 0, "half_cheetah_dir"),
        (["trian"], 2, "error: 'trian' is no verb of metarl: perhaps train"),
        (
            ["train", "navigation", "--inner-rl", "1"],
            2,
            "error: --inner-rl is no option of metarl train: perhaps --inner-lr",
        ),
        (["evaluate", "x", "--task", "1"], 2, "error: --task is no option of metarl evaluate: perhaps --tasks"),
        (["train", "half_cheeta_dir"], 2, "error: task is 'half_cheeta_dir': perhaps half_cheetah_dir, or name"),
    ],
)
def test_the_front_answers_without_torch(arguments: list[str], code: int, said: str) -> None:
    assert not catalogue.is_stale(), "run make format"
    found = call_light(*arguments)
    assert f"loaded [] {code}" in found.stdout, found.stderr
    assert said in found.stdout + found.stderr


def test_watching_takes_no_torch(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"iterations": 7}')
    (tmp_path / "run" / "progress.csv").write_text("iteration,env_steps\n0,10\n1,20\n")
    found = call_light("watch", str(tmp_path), "--once")
    assert "loaded ['tyro'] 0" in found.stdout, found.stderr
    assert "run: runs, 2 of 7 iterations" in found.stdout
    found = call_light("watch", "--every", "-1", str(tmp_path))
    assert "loaded ['tyro'] 2" in found.stdout
    assert "error: every is -1.0: use a number of seconds above 0" in found.stderr


def test_importing_the_package_takes_no_torch() -> None:
    source = (
        "import sys, metarl, gymnasium; print('torch' in sys.modules, 'metarl/HalfCheetahDir-v0' in gymnasium.registry)"
    )
    found = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split() == ["False", "True"]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evalute", "runs/a"], "'evalute' is no verb of metarl: perhaps evaluate"),
        (
            ["xyz"],
            "'xyz' is no verb of metarl: use one of train, tune, evaluate, probe, report, plot, watch, ",
        ),
        (
            ["train", "navigatoin"],
            "task is 'navigatoin': perhaps navigation, or name the file that defines it with --code",
        ),
        (["train", "--seed", "1", "navigatoin"], "task is 'navigatoin': perhaps navigation, or name"),
        (["train", "navigation", "--learner", "malm"], "learner is 'malm': perhaps maml"),
        (["train", "navigation", "--learner=sac"], "learner is 'sac': use one of maml, promp, reptile, es_maml, rl2"),
        (["train", "navigation", "--nmu-tasks", "3"], "--nmu-tasks is no option of metarl train: perhaps --num-tasks"),
        (["train", "navigation", "--nmu_tasks=3"], "--nmu-tasks is no option of metarl train: perhaps --num-tasks"),
        (
            ["train", "--learner", "rl2", "bandit", "--inner-lr", "1"],
            "--inner-lr is no option of metarl train: ",
        ),
        (["train"], "no task is named: metarl train TASK, one of ant_damaged, "),
        (["plot", "runs/a", "--tags", "x"], "--tags is no option of metarl plot: perhaps --tag"),
        (["video", "runs/a", "--setps", "1"], "--setps is no option of metarl video: perhaps --steps"),
        (["list", "--cod", "x"], "--cod is no option of metarl list: perhaps --code"),
        (["doctor", "--qqq"], "--qqq is no option of metarl doctor: use one of --help"),
    ],
)
def test_fault_37_a_mistyped_name_gets_one_suggestion(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_request:
        cli.main(arguments)
    assert exit_request.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert line.count("perhaps") <= 1


@pytest.mark.parametrize("verb", ["evaluate", "plot", "video", "list", "doctor"])
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_request:
        cli.main([verb, "--help"])
    assert exit_request.value.code == 0
    assert f"usage: metarl {verb}" in capsys.readouterr().out


def test_the_list_has_tasks_learners_and_both_kinds_of_preset(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["list"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert all(any(row[:1] == [task] for row in rows) for task in TASKS)
    assert ["half_cheetah_dir", "maml2017", "1", "20", "6", "200", "no", "-"] in rows
    assert [
        "navigation",
        "maml",
        "maml2017,",
        "corner,",
        "fomaml,",
        "emaml,",
        "dice,",
        "lvc,",
        "meta_sgd,",
        "cavia",
    ] in rows
    assert (
        "learners: maml, promp, reptile, es_maml, rl2, varibad, pearl, prototypical, meta_networks, fine_tuned, nearest"
        in lines
    )
    assert len(ALGORITHMS) == 7
