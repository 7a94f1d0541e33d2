"""A run of two processes, started by torchrun."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from metarl.runs import checkpoint

ROOT = Path(__file__).parents[2]
TINY = ["--num-tasks", "4", "--num-envs", "2", "--episodes", "2", "--horizon", "5", "--num-threads", "1"]
TINY += ["--eval-interval", "2", "--eval-tasks", "2", "--checkpoint-interval", "1", "--outer", "ppo"]


def torchrun(runs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "metarl"]
    command += ["train", "navigation", "--learner", "maml", *TINY, "--runs", str(runs), "--start-or-resume", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_two_processes_resume_to_the_bits_of_an_undisturbed_pair(tmp_path: Path) -> None:
    for name, iterations in (("half", "2"), ("half", "4"), ("whole", "4")):
        found = torchrun(tmp_path, "--name", name, "--iterations", iterations)
        assert found.returncode == 0, found.stderr
    for folder in ("checkpoints", "checkpoints/rank-1"):
        half, whole = (
            checkpoint.load(tmp_path / name / folder / "iteration_00000004.ckpt") for name in ("half", "whole")
        )
        assert whole["ranks"] == 2
        for a, b in zip(tree_leaves(half), tree_leaves(whole), strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    first, second = (
        checkpoint.load(tmp_path / "whole" / folder / "iteration_00000004.ckpt")
        for folder in ("checkpoints", "checkpoints/rank-1")
    )
    assert all(torch.equal(first["learner"]["meta"][name], x) for name, x in second["learner"]["meta"].items())
    assert torch.equal(first["actions"], second["actions"])  # each draws for all, and keeps its own
