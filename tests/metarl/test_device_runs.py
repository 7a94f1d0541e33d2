"""Whole runs on a pretended CUDA device: memory is logged, and running out of it costs an iteration, not the run."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_cuda import Pretence, pretend_cuda, to_host

from metarl import cli, presets
from metarl.algorithms.rl2 import RL2
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.process import EXIT_BAD_INPUT
from metarl.train import memory

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: nothing to pretend"),
]


@pytest.fixture
def cuda() -> Iterator[Pretence]:
    with pretend_cuda() as pretence:
        yield pretence


TINY = Experiment(
    TabularMDP(horizon=3, states=3, actions=2),
    RL2(policy=RecurrentPolicy(memory_size=8), epochs=1),
    num_tasks=2,
    num_envs=2,
    episodes=4,
    iterations=3,
    eval_interval=3,
    eval_tasks=2,
    num_threads=1,
)


def train_on_device(runs: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets._KNOWN, ("tabular_mdp", "rl2"), {"tiny": TINY})
        cli.main(["train", "tabular_mdp", "--runs", str(runs), "--name", "run", "--device", "cuda"])


def test_a_run_on_the_device_logs_its_memory(tmp_path: Path, cuda: Pretence) -> None:
    train_on_device(tmp_path)
    with open(tmp_path / "run" / "progress.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["time/gpu_memory_gib"] for row in rows] == ["1.5"] * 3
    assert rows[-1]["meta_test/return_trial"]
    assert memory(torch.device("cpu")) == {}


def test_a_run_out_of_memory_names_the_fields_and_keeps_what_it_has_completed(
    tmp_path: Path, cuda: Pretence, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learned, update = [], RL2.update

    def update_twice(self: RL2, *arguments: Any) -> Any:
        if len(learned) == 2:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 139.00 GiB of which "
                "2.00 GiB is free. Of the allocated memory 137.00 GiB is allocated by PyTorch."
            )
        learned.append(update(self, *arguments))
        return learned[-1]

    monkeypatch.setattr(RL2, "update", update_twice)
    with pytest.raises(SystemExit) as end:
        train_on_device(tmp_path)
    assert end.value.code == EXIT_BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory: start a run with lower num_envs, num_tasks or episodes")
    assert line.endswith("(CUDA out of memory. Tried to allocate 9.00 GiB)")
    content = checkpoint.load_newest(tmp_path / "run" / checkpoint.DIRECTORY, pytest.fail)
    assert content["iteration"] == 2
    for name, value in to_host(learned[-1][0].meta).items():
        assert torch.equal(content["learner"]["meta"][name], value)
