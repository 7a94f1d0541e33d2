"""SIGTERM and Ctrl-C at any moment of a run: it ends without a traceback, whole, and can be continued."""

import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from metarl.algorithms.maml import MAML
from metarl.envs.small.navigation import Navigation
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.session import execute
from metarl.runs.stopping import StopOnSignal, Stopped

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Experiment(
    task=Navigation(horizon=5), learner=MAML(), num_tasks=2, num_envs=2, episodes=2, iterations=2, eval_interval=0
)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_no_failure_handler_takes_a_signal_for_a_failure() -> None:
    def work() -> None:
        try:
            send()
        except Exception:  # as around torch.load
            pytest.fail("swallowed")

    with StopOnSignal() as stopping, pytest.raises(Stopped):
        work()
    assert stopping.signal == signal.SIGTERM


def test_a_section_that_must_not_be_cut_is_finished_first() -> None:
    finished = []

    def work(stopping: StopOnSignal) -> None:
        with stopping.postponed():
            send()
            finished.append(True)

    with StopOnSignal() as stopping, pytest.raises(Stopped):
        work(stopping)
    assert finished


def test_a_failure_in_such_a_section_leaves_later_signals_alone() -> None:
    with StopOnSignal() as stopping:
        with pytest.raises(KeyError), stopping.postponed():
            raise KeyError
        with pytest.raises(Stopped):
            send()


def stopped_in(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, run: Path) -> tuple[int, str]:
    """Exit code and output of a run that is told to stop while ``owner.name`` is at work."""
    original, console = getattr(owner, name), Console(file=io.StringIO(), width=200)

    def with_a_signal(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        send()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, with_a_signal)
        code = execute(TINY, run, console=console)
    return code, console.file.getvalue()


@pytest.mark.parametrize(
    ("owner", "name"), [(Experiment, "make_env"), (MAML, "init"), (MAML, "update"), (checkpoint, "save_iteration")]
)
def test_a_run_stopped_anywhere_says_how_to_continue_and_does(
    owner: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, run = create_run(TINY, tmp_path, "whole"), create_run(TINY, tmp_path, "stopped")
    assert execute(TINY, undisturbed, console=Console(file=io.StringIO())) == 0
    code, said = stopped_in(monkeypatch, owner, name, run)
    assert code == 128 + signal.SIGTERM
    assert f"stopped; continue with --resume {run}" in said.replace("\n", " ")
    assert execute(TINY, run, console=Console(file=io.StringIO())) == 0
    last = "iteration_00000002.ckpt"
    first, second = (checkpoint.load(folder / checkpoint.DIRECTORY / last) for folder in (undisturbed, run))
    assert all((first["learner"]["meta"][name] == weight).all() for name, weight in second["learner"]["meta"].items())


def test_a_signal_while_a_checkpoint_is_read_does_not_pass_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(TINY, tmp_path, "run")
    assert execute(TINY, run, console=Console(file=io.StringIO())) == 0
    code, said = stopped_in(monkeypatch, checkpoint.torch, "load", run)
    assert code == 128 + signal.SIGTERM
    assert "looking for the checkpoint before it" not in said


def test_a_run_without_its_checkpoints_is_not_begun_anew(tmp_path: Path) -> None:
    run = create_run(TINY, tmp_path, "run")
    assert execute(TINY, run, console=Console(file=io.StringIO())) == 0
    for path in (run / checkpoint.DIRECTORY).iterdir():
        path.unlink()
    before = (run / "progress.csv").read_text()
    with pytest.raises(ValueError, match=r"has 2 iterations in progress.csv and no checkpoint to continue from"):
        execute(TINY, run)
    assert (run / "progress.csv").read_text() == before
