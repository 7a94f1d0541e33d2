"""Nothing is lost: killed, stopped and damaged runs end with the bits of an undisturbed one.

A process is started where it is to be killed or stopped; what goes on with its run is this one, with the same bits.
"""

import contextlib
import csv
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from metarl import cli
from metarl.runs import checkpoint
from metarl.runs.lock import run_lock

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
SMALL = ["--num-tasks", "2", "--num-envs", "3", "--episodes", "6", "--horizon", "20", "--num-threads", "1"]
PACE = ["--checkpoint-interval", "2", "--eval-interval", "3", "--eval-tasks", "2"]
LENGTH = 12  # iterations: enough for a signal to come before the last one on a busy machine
KINDS = ["half_cheetah_dir maml", "tabular_mdp rl2"]


def arguments(kind: str, runs: Path, *options: str) -> list[str]:
    task, learner = kind.split()
    # halves add up: not a schedule of each half
    annealed = ["--anneal-updates", f"{LENGTH}"] if learner == "rl2" else []
    return ["train", task, "--learner", learner, "--runs", str(runs), *options, *annealed]


def start(kind: str, runs: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "metarl", *arguments(kind, runs, *options)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(kind: str, runs: Path, *options: str) -> tuple[int, str]:
    """The command in this process: its code, and what it says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main(arguments(kind, runs, *options))
        except SystemExit as exit_request:
            return int(exit_request.code or 0), said.getvalue()
    return 0, said.getvalue()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def checkpoint_path(run: Path, iteration: int) -> Path:
    return run / "checkpoints" / f"iteration_{iteration:08d}.ckpt"


def assert_same_end(run: Path, reference: Path, iteration: int) -> None:
    """Every tensor of the last checkpoint, generators and worlds included, and every scalar but the times."""
    ours = checkpoint.load(checkpoint_path(run, iteration))
    theirs = checkpoint.load(checkpoint_path(reference, iteration))
    for a, b in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert scalars(run) == scalars(reference)


def scalars(run: Path) -> list[dict[str, str]]:
    with open(run / "progress.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module", params=[pytest.param(KINDS[0], marks=pytest.mark.slow), KINDS[1]])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An undisturbed run of each kind."""
    runs = tmp_path_factory.mktemp("runs")
    code, output = finish(request.param, runs, "--name", "whole", "--iterations", f"{LENGTH}", *SMALL, *PACE)
    assert code == 0, output
    return request.param, runs / "whole"


@pytest.mark.slow  # test_kill.py kills without starting a process for each life
def test_a_run_killed_after_a_checkpoint_ends_with_the_bits_of_an_undisturbed_one(
    reference: tuple[str, Path], tmp_path: Path
) -> None:
    kind, whole = reference
    process = start(kind, tmp_path, "--name", "killed", "--iterations", f"{LENGTH}", *SMALL, *PACE)
    wait_for(checkpoint_path(tmp_path / "killed", 4), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not checkpoint_path(tmp_path / "killed", LENGTH).exists()
    code, output = finish(kind, tmp_path, "--resume", str(tmp_path / "killed"))
    assert code == 0, output
    assert "continuing" in output
    assert_same_end(tmp_path / "killed", whole, LENGTH)


def test_half_a_run_resumed_for_the_other_half_ends_with_the_bits_of_a_whole_one(
    reference: tuple[str, Path], tmp_path: Path
) -> None:
    kind, whole = reference
    assert finish(kind, tmp_path, "--name", "half", "--iterations", f"{LENGTH // 2}", *SMALL, *PACE)[0] == 0
    code, output = finish(kind, tmp_path, "--resume", str(tmp_path / "half"), "--iterations", f"{LENGTH}")
    assert code == 0, output
    assert_same_end(tmp_path / "half", whole, LENGTH)


def test_a_signal_checkpoints_at_once_and_says_how_to_continue(reference: tuple[str, Path], tmp_path: Path) -> None:
    kind, whole = reference
    process = start(kind, tmp_path, "--name", "stopped", "--iterations", f"{LENGTH}", *SMALL, *PACE)
    wait_for(checkpoint_path(tmp_path / "stopped", 2), process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert not checkpoint_path(tmp_path / "stopped", LENGTH).exists()
    assert "--resume" in output
    code, output = finish(kind, tmp_path, "--resume", str(tmp_path / "stopped"))
    assert code == 0, output
    assert_same_end(tmp_path / "stopped", whole, LENGTH)


def test_a_damaged_checkpoint_costs_one_line_and_the_iterations_since_the_one_before(
    reference: tuple[str, Path], tmp_path: Path
) -> None:
    kind, whole = reference
    assert finish(kind, tmp_path, "--name", "torn", "--iterations", f"{LENGTH - 1}", *SMALL, *PACE)[0] == 0
    newest = checkpoint_path(tmp_path / "torn", LENGTH - 1)
    newest.write_bytes(newest.read_bytes()[:-100])
    code, output = finish(kind, tmp_path, "--resume", str(tmp_path / "torn"), "--iterations", f"{LENGTH}")
    assert code == 0, output
    assert output.count("is damaged") == 1
    assert f"after {LENGTH - 2} iterations" in output
    assert_same_end(tmp_path / "torn", whole, LENGTH)


def test_other_options_than_the_recorded_ones_are_refused_on_resume(reference: tuple[str, Path]) -> None:
    kind, whole = reference
    code, output = finish(kind, whole.parent, "--resume", str(whole), "--num-tasks", "4")
    assert code == 2
    assert "num_tasks is 4, the run to resume has 2" in output


def test_a_run_without_a_usable_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    kind = KINDS[1]
    assert finish(kind, tmp_path, "--name", "lost", "--iterations", "1", *SMALL, *PACE)[0] == 0
    for path in (tmp_path / "lost" / "checkpoints").iterdir():
        path.write_bytes(os.urandom(500))
    code, output = finish(kind, tmp_path, "--resume", str(tmp_path / "lost"))
    assert code == 2
    assert "error: no usable checkpoint" in output
    assert "Traceback" not in output


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    with run_lock(tmp_path), pytest.raises(ValueError, match="in use by another process"), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):  # free again
        pass


def test_a_resumed_run_keeps_its_name_and_what_it_has(reference: tuple[str, Path]) -> None:
    kind, whole = reference
    code, output = finish(kind, whole.parent, "--resume", str(whole), "--name", "other")
    assert (code, output) == (2, "error: name is 'other': a resumed run keeps its own, leave it out\n")
    code, output = finish(kind, whole.parent, "--resume", str(whole), "--iterations", "1")
    assert code == 2
    assert f"iterations is 1: {whole} has" in output
