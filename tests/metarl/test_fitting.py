"""metarl.fit: training from Python, in any thread, with callbacks that may end it."""

import csv
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metarl
from metarl import MAML, Experiment, GaussianMLP
from metarl.envs.small.navigation import Navigation
from metarl.runs import checkpoint
from metarl.runs.session import Callback, execute
from metarl.types import Metrics

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Experiment(
    Navigation(horizon=6), MAML(GaussianMLP((4,))), num_tasks=2, num_envs=2, episodes=2, iterations=3, eval_interval=0
)


def fit(folder: Path, *callbacks: Callback, iterations: int = 3) -> list[Metrics]:
    return metarl.fit(replace(TINY, iterations=iterations), folder, callbacks=callbacks, quiet=True)


def weights(run: Path) -> torch.Tensor:
    meta = metarl.load(run).state.meta
    return torch.cat([value.flatten() for value in meta.values()])


def test_it_returns_what_progress_csv_records(tmp_path: Path) -> None:
    seen: list[tuple[int, Metrics]] = []
    history = fit(tmp_path / "run", lambda iteration, metrics: seen.append((iteration, metrics)))
    assert [row["iteration"] for row in history] == [1, 2, 3]
    assert [{"iteration": iteration} | metrics for iteration, metrics in seen] == history
    with open(tmp_path / "run" / "progress.csv", newline="") as file:
        recorded = [float(row["meta_train/return_post"]) for row in csv.DictReader(file)]
    assert [row["meta_train/return_post"] for row in history] == pytest.approx(recorded)


def test_a_callback_ends_a_run_that_resumes_as_if_it_had_not(tmp_path: Path) -> None:
    whole, short = tmp_path / "whole", tmp_path / "short"
    fit(whole)
    others: list[int] = []
    history = fit(short, lambda iteration, _: iteration == 2, lambda iteration, _: others.append(iteration))
    assert len(history) == 2
    assert others == [1, 2], "all callbacks of the last iteration are called"
    assert checkpoint.load_newest(short / checkpoint.DIRECTORY, print)["iteration"] == 2
    assert not torch.equal(weights(short), weights(whole))
    assert execute(TINY, short) == 0
    assert torch.equal(weights(short), weights(whole))
    assert len((short / "progress.csv").read_text().splitlines()) == 1 + 3


def test_truth_alone_ends_a_run(tmp_path: Path) -> None:
    assert len(fit(tmp_path / "run", lambda *_: 1)) == 3


def test_what_a_callback_raises_comes_out_and_the_run_can_go_on(tmp_path: Path) -> None:
    def fail(iteration: int, metrics: Metrics) -> None:
        if iteration == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "run", fail)
    assert checkpoint.load_newest(tmp_path / "run" / checkpoint.DIRECTORY, print)["iteration"] == 1
    fit(tmp_path / "whole")
    assert execute(TINY, tmp_path / "run") == 0
    assert torch.equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_it_trains_in_a_thread_to_the_same_bits(tmp_path: Path) -> None:
    histories: list[list[Metrics]] = []
    thread = threading.Thread(target=lambda: histories.append(fit(tmp_path / "thread")))
    thread.start()
    thread.join()
    assert len(histories[0]) == 3
    fit(tmp_path / "main")
    assert torch.equal(weights(tmp_path / "thread"), weights(tmp_path / "main"))


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_end_it_in_the_main_thread(number: int, error: type[BaseException], tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with pytest.raises(error):
        fit(tmp_path / "run", lambda *_: os.kill(os.getpid(), number))
    assert signal.getsignal(number) is before
    assert checkpoint.has_checkpoint(tmp_path / "run" / checkpoint.DIRECTORY)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    fit(tmp_path / "run", iterations=1)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(ValueError, match="exists"):
        fit(tmp_path / "run", iterations=1)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_the_loop_stays_where_it_was() -> None:
    from metarl.train import train

    assert train.__module__ == "metarl.train"
    assert metarl.fit.__module__ == "metarl.runs.fitting"
