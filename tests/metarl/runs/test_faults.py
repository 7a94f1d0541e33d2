"""Faults seen from outside, each by its number, and their siblings."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from metarl import presets
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO
from metarl.algorithms.rl2 import RL2
from metarl.cli import main
from metarl.envs.small.navigation import Navigation
from metarl.runs import checkpoint, folder, lock, table
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.experiment import Experiment
from metarl.runs.files import read_file, write_whole
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.lock import run_lock
from metarl.runs.session import execute
from metarl.runs.stopping import StopOnSignal, Stopped
from metarl.runs.versions import git_commit, versions
from metarl.train import scheduled

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[3]
TINY = Experiment(
    task=Navigation(horizon=5),
    learner=MAML(outer=PPO()),
    num_tasks=2,
    num_envs=2,
    episodes=2,
    iterations=2,
    eval_interval=0,
    checkpoint_interval=1,
    num_threads=1,
)


def run_quietly(experiment: Experiment, run: Path) -> str:
    console = Console(file=io.StringIO(), width=400)
    assert execute(experiment, run, console=console) == 0
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two iterations."""
    made = create_run(TINY, tmp_path / "runs", "run")
    run_quietly(TINY, made)
    return made


def newest(run: Path) -> Path:
    return run / checkpoint.DIRECTORY / "iteration_00000002.ckpt"


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the newest checkpoint, with a right digest."""
    content = checkpoint.load(newest(run))
    change(content)
    checkpoint.save(newest(run), content)


# --- 6: whose commit


def git(directory: Path, *arguments: str) -> None:
    options = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", *options, *arguments], cwd=directory, check=True, capture_output=True)


def test_fault_6_the_commit_is_of_a_repository_that_holds_the_source(tmp_path: Path) -> None:
    inside = tmp_path / ".venv" / "metarl" / "versions.py"
    inside.parent.mkdir(parents=True)
    inside.write_text("")
    assert git_commit(inside) is None  # no repository
    git(tmp_path, "init")
    (tmp_path / "other.py").write_text("")
    git(tmp_path, "add", "other.py")
    git(tmp_path, "commit", "-m", "theirs")
    assert git_commit(inside) is None  # somebody else's
    git(tmp_path, "add", "-f", str(inside))
    assert git_commit(inside) is None  # not committed yet
    git(tmp_path, "commit", "-m", "ours")
    assert len(git_commit(inside) or "") == 40
    inside.write_text("changed")
    assert (git_commit(inside) or "").endswith("+changes")


def test_fault_6_without_git_and_metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("metarl.runs.versions.DISTRIBUTION", "nothing-of-this-name")
    found = versions()
    assert found["git_commit"] is None
    assert found["metarl"] is None
    assert found["torch"]


# --- 7: a checkpoint knows its experiment


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(TINY, seed=1), "seed is 1"),
        (replace(TINY, learner=MAML(outer=PPO(), inner_lr=0.3)), "learner.inner_lr is 0.3"),
        (replace(TINY, learner=MAML(outer=PPO(learning_rate=0.5))), "learner.outer.learning_rate is 0.5"),
        (replace(TINY, learner=MAML()), "learner.outer.class is 'TRPO'"),
        (replace(TINY, num_envs=1), "num_envs is 1"),
        (replace(TINY, task=Navigation(horizon=6)), "task.horizon is 6"),
    ],
)
def test_fault_7_a_foreign_checkpoint_is_refused_by_the_field(
    other: Experiment, named: str, run: Path, tmp_path: Path
) -> None:
    foreign = create_run(other, tmp_path, "foreign")
    run_quietly(other, foreign)
    newest(run).write_bytes(newest(foreign).read_bytes())
    with pytest.raises(CheckpointError, match="of another experiment") as error:
        execute(replace(TINY, iterations=3), run, console=Console(file=io.StringIO()))
    assert named in str(error.value)


def moment(content: dict[str, Any]) -> dict[str, Any]:
    return content["learner"]["optimizer"]["state"][0]  # type: ignore[no-any-return]


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "iteration -5": lambda c: c.update(iteration=-5),
    "iteration 2.0": lambda c: c.update(iteration=2.0),
    "iteration True": lambda c: c.update(iteration=True),
    "steps NaN": lambda c: c.update(env_steps=float("nan")),
    "steps -1": lambda c: c.update(env_steps=-1),
    "steps 2^70": lambda c: c.update(env_steps=2**70),
    "no steps": lambda c: c.pop("env_steps"),
    "no learner": lambda c: c.pop("learner"),
    "learner a list": lambda c: c.update(learner=[1, 2]),
    "no env": lambda c: c.pop("env"),
    "env a number": lambda c: c.update(env=3),
    "other field": lambda c: c["learner"].update(other=1),
    "parameter of another type": lambda c: c["learner"]["meta"].update(
        {k: v.double().long() for k, v in c["learner"]["meta"].items()}
    ),
    "parameter NaN": lambda c: next(iter(c["learner"]["meta"].values())).fill_(float("nan")),
    "parameter of another shape": lambda c: c["learner"]["meta"].update(
        {k: v[..., :1] for k, v in c["learner"]["meta"].items()}
    ),
    "moments of another shape": lambda c: moment(c).update(exp_avg=torch.zeros(1, 1)),
    "second moments of another shape": lambda c: moment(c).update(exp_avg_sq=torch.zeros(1, 1)),
    "moments NaN": lambda c: moment(c)["exp_avg"].fill_(float("nan")),
    "moments lacking": lambda c: c["learner"]["optimizer"]["state"].pop(0),
    "optimizer a string": lambda c: c["learner"].update(optimizer="adam"),
    "generator of nothing": lambda c: c.update(tasks=torch.zeros(3, dtype=torch.uint8)),
    "generator of floats": lambda c: c.update(actions=torch.zeros(5056)),
    "worlds of another number": lambda c: c["env"].update(clock=torch.zeros(99, dtype=torch.int64)),
    "worlds of another type": lambda c: c["env"].update(clock=c["env"]["clock"].float()),
    "experiment a number": lambda c: c.update(experiment=3),
    "experiment no JSON": lambda c: c.update(experiment="{"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_fault_7_contents_with_a_right_digest_and_wrong_fields(kind: str, run: Path) -> None:
    for path in (run / checkpoint.DIRECTORY).iterdir():
        if path != newest(run):
            path.unlink()
    edit(run, WRONG[kind])
    with pytest.raises(CheckpointError) as error:
        execute(replace(TINY, iterations=3), run, console=Console(file=io.StringIO()))
    assert "\n" not in str(error.value)


def test_fault_7_an_old_checkpoint_that_does_not_know_goes_on(run: Path) -> None:
    edit(run, lambda content: content.pop("experiment"))
    assert "continuing" in run_quietly(replace(TINY, iterations=3), run)


# --- 9: schedules follow the run


def test_fault_9_the_schedule_follows_the_run(tmp_path: Path) -> None:
    learner = presets.find("bandit", "rl2")["n10_k5"].learner
    assert isinstance(learner, RL2)
    assert learner.anneal_updates is None
    assert scheduled(learner, 20) == replace(learner, anneal_updates=20)
    for number in (0, 7):  # as in the configs of older runs
        told = replace(learner, anneal_updates=number)
        assert scheduled(told, 20) is told


def test_fault_9_a_short_run_ends_at_the_lowest_rate(tmp_path: Path) -> None:
    start = presets.find("bandit", "rl2")["n10_k5"]
    small = replace(start, num_tasks=4, episodes=4, iterations=4, eval_interval=0, num_threads=1)
    run = create_run(small, tmp_path, "run")
    run_quietly(small, run)
    header, *rows = (line.split(",") for line in (run / "progress.csv").read_text().splitlines())
    rates = [float(row[header.index("train/learning_rate")]) for row in rows]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


# --- 11, 23: what was refused is set aside


def test_fault_11_good_checkpoints_are_never_pruned_for_refused_ones(run: Path) -> None:
    for number in (13, 14):
        (run / checkpoint.DIRECTORY / f"iteration_{number:08d}.ckpt").write_bytes(newest(run).read_bytes()[:-50])
    said = run_quietly(replace(TINY, iterations=3), run)
    assert "iteration_00000014.ckpt.refused" in said
    assert {path.name for path in (run / checkpoint.DIRECTORY).iterdir()} == {
        *(f"iteration_0000000{number}.ckpt" for number in (2, 3)),
        *(f"iteration_000000{number}.ckpt.refused" for number in (13, 14)),
    }


def test_fault_11_also_where_they_cannot_be_renamed(tmp_path: Path) -> None:
    for number in (20, 30):
        (tmp_path / f"iteration_{number:08d}.ckpt").write_bytes(b"")
    for number in (10, 11, 12):
        checkpoint.save_iteration(tmp_path, number, {"iteration": number})
    assert checkpoint.load_newest(tmp_path, lambda line: None)["iteration"] == 12
    assert (tmp_path / "iteration_00000011.ckpt").exists()


def test_fault_11_a_renamed_checkpoint_is_refused(run: Path) -> None:
    newest(run).rename(run / checkpoint.DIRECTORY / "iteration_00000009.ckpt")
    assert "iteration_00000009.ckpt is of iteration 2" in run_quietly(TINY, run)


def test_fault_23_pipes_and_folders_are_no_checkpoints(run: Path) -> None:
    os.mkfifo(run / checkpoint.DIRECTORY / "iteration_00000008.ckpt")
    (run / checkpoint.DIRECTORY / "iteration_00000007.ckpt").mkdir()
    said = run_quietly(replace(TINY, iterations=8), run)
    assert "no regular file" in said
    assert checkpoint.load_newest(run / checkpoint.DIRECTORY, pytest.fail)["iteration"] == 8


@pytest.mark.parametrize("name", ["config.json", "progress.csv", "run.lock"])
def test_fault_23_pipes_elsewhere(name: str, run: Path) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    try:
        said = run_quietly(load_experiment(run), run)
    except ValueError as error:
        said = str(error)
    assert name in said
    assert "no regular file" in said


# --- 12: links


LINKS = ["config.json", "config.tmp", "progress.csv", "progress.tmp", "run.lock", "versions.json", "checkpoints"]
LINKS += ["checkpoints/iteration_00000002.ckpt", "checkpoints/iteration_00000003.tmp", "videos", "evaluation.json"]


@pytest.mark.parametrize("name", LINKS)
def test_fault_12_a_run_folder_holds_no_links(name: str, run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    if (run / name).is_dir() or name == "videos":
        outside.mkdir()
        (outside / "precious").write_text("untouched")
    else:
        outside.write_text("untouched")
    if (run / name).exists():
        (run / name).rename(tmp_path / "moved")
    (run / name).symlink_to(outside)
    for work in (lambda: load_experiment(run), lambda: execute(replace(TINY, iterations=3), run)):
        with pytest.raises(ValueError, match="is a link") as error:
            work()
        assert name in str(error.value)
    kept = outside / "precious" if outside.is_dir() else outside
    assert kept.read_text() == "untouched"


def test_fault_12_what_is_written_replaces_links(tmp_path: Path) -> None:
    """Also those that were put there after the folder was looked at."""
    (tmp_path / "outside").write_text("untouched")
    for name in ("a.json", "a.tmp"):
        (tmp_path / name).symlink_to("outside")
    write_whole(tmp_path / "a.json", b"new")
    assert (tmp_path / "outside").read_text() == "untouched"
    assert not (tmp_path / "a.json").is_symlink()
    (tmp_path / "b").symlink_to("a.json")
    with pytest.raises(OSError, match="link"):
        read_file(tmp_path / "b", 100)
    with pytest.raises(OSError, match="more than 2 bytes"):
        read_file(tmp_path / "a.json", 2)


# --- 13, 25: whole folders, names of their own


@pytest.mark.parametrize("part", ["write_whole", "record_config", "versions"])
def test_fault_13_a_folder_is_whole_or_not_there(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        assert not (tmp_path / "run").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, part, stop)
    with pytest.raises(KeyboardInterrupt):
        create_run(TINY, tmp_path, "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_fault_13_what_has_the_name_keeps_it(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(ValueError, match="exists: choose another"):
        create_run(TINY, tmp_path, "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_fault_25_two_runs_of_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.runs.folder.time.strftime", lambda form: "20260101-000000")
    made = {create_run(replace(TINY, learner=MAML(inner_lr=lr)), tmp_path, None).name for lr in (0.1, 0.2, 0.3)}
    assert len(made) == 3
    assert sum(name.endswith("20260101-000000") for name in made) == 1


# --- 16, 36: locks and platforms


def test_fault_16_only_a_held_lock_means_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with run_lock(tmp_path), pytest.raises(ValueError, match="in use"), run_lock(tmp_path):
        pass

    def unsupported(*_: Any, **__: Any) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "lock_descriptor", unsupported)
    with run_lock(tmp_path, said.append):
        pass
    assert len(said) == 1
    assert "cannot be locked" in said[0]


ELSEWHERE = """
import os, sys, signal
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGKILL", "SIGUSR1"):
    delattr(signal, name)
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
    delattr(os, name)
opened = os.open
def no_folders(path, *arguments, **options):
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return opened(path, *arguments, **options)
os.open = no_folders
from metarl.cli import main
main(sys.argv[1:])
"""


def test_fault_36_without_fcntl_folders_and_signals(tmp_path: Path) -> None:
    options = "navigation --learner maml --num-tasks 2 --num-envs 2 --episodes 2 --horizon 5 --iterations 2 --name run"
    command = [sys.executable, "-c", ELSEWHERE, "train", *options.split(), "--num-threads", "1", "--eval-interval", "0"]
    done = subprocess.run([*command, "--runs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "cannot be locked" in done.stdout.replace("\n", " ")
    assert newest(tmp_path / "run").exists()


# --- 17, 26, 34: signals and threads


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_fault_17_a_closed_terminal_stops_as_any_other_signal(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopOnSignal() as stopping, pytest.raises(Stopped):
        os.kill(os.getpid(), number)
    assert stopping.signal == number
    assert signal.getsignal(number) == before


def test_fault_17_nohup_is_heeded() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopOnSignal() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stopping.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_fault_17_a_terminal_that_is_gone_costs_no_checkpoint(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        lines = 0

        def write(self, text: str) -> int:
            Gone.lines += 1
            if Gone.lines > 2:
                raise OSError(5, "Input/output error")
            return len(text)

    run = create_run(TINY, tmp_path, "run")
    with pytest.raises(OSError, match="Input/output error"):
        execute(TINY, run, console=Console(file=Gone()))
    assert checkpoint.has_checkpoint(run / checkpoint.DIRECTORY)
    assert "continuing" in run_quietly(TINY, run)


def test_fault_26_a_run_in_a_thread(tmp_path: Path) -> None:
    run, codes = create_run(TINY, tmp_path, "run"), []
    work = threading.Thread(target=lambda: codes.append(execute(TINY, run, console=Console(file=io.StringIO()))))
    work.start()
    work.join()
    assert codes == [0]
    assert newest(run).exists()


IMPORTING = """
import importlib.abc, os, signal, sys
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            os.kill(os.getpid(), int(sys.argv[2]))
sys.meta_path.insert(0, Interrupt())
from metarl.cli import main
main(["doctor"])
"""


@pytest.mark.parametrize("module", ["torch", "torch.nn", "mujoco", "metarl.films.video"])
def test_fault_34_a_signal_during_imports(module: str) -> None:
    number = {"torch": 15, "torch.nn": 2}.get(module, 1)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, module, str(number)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stderr, done.stdout) == (128 + number, "error: interrupted\n", "")


@pytest.mark.parametrize("harm", ["removed", "read-only"])
def test_fault_34_a_folder_that_is_lost_half_way(harm: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = MAML.update

    def lose(*arguments: Any, **options: Any) -> Any:
        if harm == "removed" and run.exists():
            run.rename(run.with_name("gone"))
        if harm == "read-only":
            monkeypatch.setattr(os, "open", refuse)
        return update(*arguments, **options)

    def refuse(path: Any, *_: Any, **__: Any) -> int:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(MAML, "update", lose)
    with pytest.raises(OSError, match="cannot be written any more") as error:
        execute(replace(TINY, iterations=4), run, console=Console(file=io.StringIO()))
    assert "\n" not in str(error.value)


# --- 20, 27: the command line


def test_fault_20_prints_what_the_encoding_can() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    script = "from metarl.cli import print_what_the_encoding_can as p; p(); print('done · RL² ± → \\u00fc')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done ? RL? ? ? ?\n"), done.stderr


def test_fault_27_another_learner_is_refused_with_the_right_command(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_request:
        main(["train", "navigation", "--learner", "rl2", "--resume", str(run)])
    assert exit_request.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"metarl train --resume {run}" in error


# --- 18: code of a user's


def test_fault_18_a_script_beside_its_neighbour_can_be_evaluated(tmp_path: Path, monkeypatch: Any) -> None:
    from metarl.runs.code import run_code

    (tmp_path / "neighbour_of_18.py").write_text("HORIZON = 7\n")
    (tmp_path / "arm_of_18.py").write_text(
        "from dataclasses import dataclass\nfrom neighbour_of_18 import HORIZON\n"
        "from metarl.envs.small.navigation import Navigation\n"
        "@dataclass(frozen=True)\nclass Arm18(Navigation):\n    name = 'arm_18'\n    horizon: int = HORIZON\n"
        "if __name__ == '__main__':\n    raise SystemExit('trains')\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    run_code(tmp_path / "arm_of_18.py")
    from metarl.envs.registry import find_preset

    assert find_preset("arm_18").horizon == 7


# --- 21: a damaged table


GOOD = b"iteration,env_steps,x\r\n" + b"".join(b"%d,%d,%d.5\r\n" % (n, 10 * n + 10, n) for n in range(6))


@pytest.mark.parametrize(
    ("raw", "kept", "fault"),
    [
        (GOOD, 5, ""),
        (GOOD[:-4], 5, ""),  # torn past the checkpoint
        (b"", 0, "is empty"),
        (None, 0, "is gone"),
        (GOOD.split(b"\r\n", 1)[1], 0, "has no header"),
        (GOOD.replace(b"env_steps", b"steps"), 0, "has no header"),
        (GOOD.replace(b"2,30,2.5", b"2,30,2.5,9,9"), 4, "damaged in line 4"),
        (GOOD.replace(b"2,30,2.5", b"2,30," + b"9" * 200_000), 4, "damaged in line 4"),
        (GOOD.replace(b"2,30,2.5", b"two,30,2.5"), 4, "damaged in line 4"),
        (GOOD.replace(b"2,30,2.5", b"\xff\0\xfe"), 4, "damaged in line 4"),
        (GOOD.replace(b"2,30,2.5\r\n", b""), 4, "lacks rows"),
        (GOOD.replace(b"2,30,2.5", b'2,30,"2.5'), 4, "damaged in line 4"),
    ],
)
def test_fault_21_what_can_be_kept_of_a_table_is_kept(raw: bytes | None, kept: int, fault: str, tmp_path: Path) -> None:
    path, said = tmp_path / "progress.csv", []
    if raw is not None:
        path.write_bytes(raw)
    _, rows = table.recover(path, 5, said.append)
    assert [row["x"] for row in rows] == [row for row in ("0.5", "1.5", "2.5", "3.5", "4.5") if row in str(rows)]
    assert len(rows) == kept
    assert len(said) == bool(fault)
    if fault:
        assert str(path) in said[0]
        assert fault in said[0]
        assert raw is None or path.with_name("progress.csv.refused").read_bytes() == raw


# --- a full disk

FULL = """
import resource, sys
from metarl.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
main(sys.argv[2:])
"""


@pytest.mark.parametrize("size", [0, 1500, 8000])
def test_a_full_disk_ends_a_run_in_one_sentence(size: int, run: Path) -> None:
    """For the events and the table, and for the checkpoint; what was there is still good."""
    command = [sys.executable, "-c", FULL, str(size), "train", "--resume", str(run), "--iterations", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot be written" in done.stderr
    config = json.loads((run / "config.json").read_text())
    assert config["class"] == "Experiment"
    assert checkpoint.load_newest(run / checkpoint.DIRECTORY, pytest.fail)["iteration"] >= 2
