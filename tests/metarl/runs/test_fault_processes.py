"""Faults seen from outside, each by its number, and their siblings: folders, locks, signals, code, tables, disks."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_checks import TINY, newest, run_quietly

from metarl.algorithms.maml import MAML
from metarl.cli import main
from metarl.runs import checkpoint, folder, lock, table
from metarl.runs.folder import create_run
from metarl.runs.lock import run_lock
from metarl.runs.session import execute
from metarl.runs.stopping import StopOnSignal, Stopped

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[3]


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
    before = signal.signal(number, signal.SIG_DFL)  # whoever started the tests may have it ignored
    try:
        with StopOnSignal() as stopping, pytest.raises(Stopped):
            os.kill(os.getpid(), number)
        assert stopping.signal == number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


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


LATER = [pytest.param(name, marks=pytest.mark.slow) for name in ("mujoco", "torch.nn")]


@pytest.mark.parametrize("module", ["torch", "metarl.films.video", *LATER])
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


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    limit = resource.RLIMIT_FSIZE
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(limit, before)


@pytest.mark.parametrize("size", [0, 1500, 8000])
def test_a_full_disk_ends_a_run_in_one_sentence(size: int, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For the events and the table, and for the checkpoint; what was there is still good."""
    with files_of_at_most(size), pytest.raises(SystemExit) as exit_request:
        main(["train", "--resume", str(run), "--iterations", "40"])
    assert exit_request.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "cannot be written" in error
    config = json.loads((run / "config.json").read_text())
    assert config["class"] == "Experiment"
    assert checkpoint.load_newest(run / checkpoint.DIRECTORY, pytest.fail)["iteration"] >= 2
