"""Checkpoints of before the learner's protocol changed still open, to the bits that they would have led to."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_checks import TINY, edit, run_quietly
from torch.utils._pytree import tree_leaves

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.rl2 import RL2, RL2State
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.snapshot import initial_progress

pytestmark = pytest.mark.usefixtures("one_thread")
MEMORY = RL2(RecurrentPolicy(memory_size=4), standardize_reward=True, epochs=1)


def rl2_of_before(content: dict[str, Any]) -> None:
    """The reward's mean and deviation lay among the weights; there was no stream of updates."""
    learned = content["learner"]
    stats = learned.pop("reward_stats")
    learned["meta"]["reward_mean_and_std"] = torch.stack([stats["mean"], stats["std"]])
    del content["updates"]


def es_maml_of_before(content: dict[str, Any]) -> None:
    content["learner"] |= {"seed": 17, "num_updates": 2}


@pytest.mark.parametrize(
    ("experiment", "age"),
    [
        (replace(TINY, task=TabularMDP(horizon=4), learner=MEMORY), rl2_of_before),
        (replace(TINY, learner=ESMAML(policy=GaussianMLP((4,)))), es_maml_of_before),
    ],
    ids=["rl2", "es_maml"],
)
def test_a_checkpoint_of_before_goes_on_as_one_of_today(
    experiment: Experiment, age: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    ends = []
    for name in ("today", "before"):
        run = tmp_path / name
        (run / checkpoint.DIRECTORY).mkdir(parents=True)
        run_quietly(experiment, run)
        if name == "before":
            edit(run, age)
        assert "continuing" in run_quietly(replace(experiment, iterations=3), run)
        ends.append(tree_leaves(checkpoint.load_newest(run / checkpoint.DIRECTORY, pytest.fail)))
    assert len(ends[0]) == len(ends[1]) > 10
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(*ends, strict=True))


@dataclass(frozen=True)
class Unbounded(RL2):
    def init(self, spec: EnvSpec, generator: torch.Generator) -> RL2State:
        return super().init(spec, generator)._replace(reward_stats={"least": torch.tensor(torch.inf)})


def test_a_learner_whose_checkpoints_could_not_be_read_is_refused_before_training() -> None:
    """A run stopped before its first update could not have been resumed."""
    experiment = replace(TINY, task=TabularMDP(horizon=4), learner=Unbounded(RecurrentPolicy(memory_size=4)))
    with pytest.raises(BadField, match=r"Unbounded.*reward_stats.least holds numbers that are not finite"):
        initial_progress(experiment)
