"""Replay: rings against lists, and runs that are killed and go on with the same rows, of which little is written."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from rich.console import Console
from torch import Tensor

from metarl.algorithms.gradient import GradientLearner
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.small.navigation import Navigation
from metarl.extensions import LEARNERS, register
from metarl.losses.optim import OptimizerState, adam_step
from metarl.networks.mlp import GaussianMLP
from metarl.replay import Replay, empty_replay
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.session import Recording, execute
from metarl.runs.snapshot import initial_progress, restore_learner
from metarl.types import Experience, Metrics, Params

pytestmark = pytest.mark.usefixtures("one_thread")


def rows_of(replay: Replay, slot: int) -> list[float]:
    """What a slot holds, the oldest first."""
    return replay.newest(torch.tensor([slot]), int(replay.live()[slot]))["x"][0].tolist()


# --- rings -------------------------------------------------------------------------------------------


def test_rings_are_lists_that_lose_their_oldest() -> None:
    draws, replay = torch.Generator().manual_seed(0), empty_replay(4, 5, {"x": torch.zeros(())})
    expected: list[list[float]] = [[] for _ in range(4)]
    for k in range(60):
        slot = torch.randperm(4, generator=draws)[: 1 + k % 3]
        count, fresh = 1 + int(torch.randint(5, (), generator=draws)), k % 7 == 6
        x = torch.randn(len(slot), count, generator=draws)
        replay = replay.add(slot, {"x": x}, fresh=fresh)
        for place, given in zip(slot.tolist(), x.tolist(), strict=True):
            expected[place] = ([] if fresh else expected[place]) + given
        expected = [values[-5:] for values in expected]
        assert [rows_of(replay, s) for s in range(4)] == expected
    assert replay.live().tolist() == [len(values) for values in expected]


def test_samples_are_of_the_slots_own_living_rows_each_as_likely_as_another() -> None:
    replay = empty_replay(3, 4, {"x": torch.zeros(())})
    replay = replay.add(torch.tensor([0, 2]), {"x": torch.tensor([[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]])})
    replay = replay.add(torch.tensor([0]), {"x": torch.tensor([[4.0, 5.0]])})  # 1 gives way
    replay = replay.add(torch.tensor([2]), {"x": torch.tensor([[6.0]])}, fresh=True)
    drawn = replay.sample(torch.tensor([2, 0]), 4000, torch.Generator().manual_seed(0))["x"]
    assert drawn[0].unique().tolist() == [6.0]
    values, counts = drawn[1].unique(return_counts=True)
    assert values.tolist() == [2.0, 3.0, 4.0, 5.0]
    assert (counts - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5
    with pytest.raises(ValueError, match="slot 1 holds nothing"):
        replay.sample(torch.tensor([0, 1]), 1, torch.Generator())


def test_what_cannot_be_added_is_refused() -> None:
    first = empty_replay(1, 3, {"x": torch.zeros(2)})
    one = torch.tensor([0])
    with pytest.raises(BadField, match="rows are 4 of x: use at most 3 of x"):
        first.add(one, {"x": torch.zeros(1, 4, 2)})
    with pytest.raises(BadField, match="rows are 1 of y"):
        first.add(one, {"y": torch.zeros(1, 1, 2)})
    first.add(one, {"x": torch.zeros(1, 1, 2)})
    with pytest.raises(ValueError, match="no longer the newest"):
        first.add(one, {"x": torch.zeros(1, 1, 2)})


# --- runs --------------------------------------------------------------------------------------------


class Heads(NamedTuple):
    """A part of a state that is a NamedTuple itself."""

    weights: Params
    optimizer: OptimizerState


class RecallingState(NamedTuple):
    meta: Params
    heads: list[Heads]
    """Two sets of parameters, each with an optimizer of its own."""
    past: Replay


@dataclass(frozen=True)
class Recalling(GradientLearner):
    """Learns where tasks were from what it replays: a learner of these tests, whose every number hangs on its rows."""

    policy: GaussianMLP = field(default_factory=lambda: GaussianMLP((3,), "tanh"))
    capacity: int = 40

    def init(self, spec: EnvSpec, generator: torch.Generator) -> RecallingState:
        heads = [Heads({"where": torch.full((spec.obs_dim,), float(k))}, {}) for k in range(2)]
        past = empty_replay(2, self.capacity, {"obs": torch.zeros(spec.obs_dim), "reward": torch.zeros(())})
        return RecallingState(self.initial_weights(spec, generator), heads, past)

    def update(
        self, state: RecallingState, experience: Experience, generator: torch.Generator
    ) -> tuple[RecallingState, Metrics]:
        (batch,) = experience.batches[-1:]
        slot = torch.arange(len(experience.task))
        past = state.past.add(slot, {"obs": batch.obs.flatten(1, 2), "reward": batch.reward.flatten(1, 2)})
        drawn = past.sample(slot, 8, generator)
        heads = []
        for head, seen in zip(state.heads, drawn["obs"], strict=True):
            away = {"where": (head.weights["where"] - seen).mean(0) + drawn["reward"].mean()}
            heads.append(Heads(*adam_step(head.weights, away, head.optimizer, 0.1)))
        meta = {name: value + 0.01 * drawn["reward"].mean() for name, value in state.meta.items()}
        return RecallingState(meta, heads, past), {"train/seen": drawn["reward"].mean().item()}


@pytest.fixture(scope="module")
def experiment() -> Iterator[Experiment]:
    known = dict(LEARNERS)
    register(Recalling)
    yield Experiment(
        task=Navigation(horizon=5),
        learner=Recalling(),
        num_tasks=2,
        num_envs=2,
        episodes=2,
        iterations=9,
        eval_interval=0,
        checkpoint_interval=2,
        num_threads=1,
    )
    LEARNERS.clear()
    LEARNERS.update(known)


@pytest.fixture(scope="module")
def whole(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbs."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    (run.parent / "said").write_text(run_to(experiment, run))
    return run


class Killed(BaseException):
    pass


def run_to(experiment: Experiment, run: Path, end: int | None = None) -> str:
    """Trains in ``run``; killed where a callback is called after ``end`` iterations: nothing is saved then."""
    (run / checkpoint.DIRECTORY).mkdir(parents=True, exist_ok=True)

    console = Console(file=io.StringIO(), width=400)
    with pytest.MonkeyPatch.context() as patch:

        def kill(iteration: int, metrics: Metrics) -> None:
            if iteration == end:
                patch.setattr(Recording, "_save", lambda recording: None)
                raise Killed

        with contextlib.suppress(Killed) if end else contextlib.nullcontext():
            assert execute(experiment, run, console=console, callbacks=[kill]) == 0
            assert end is None
    return console.file.getvalue()  # type: ignore[attr-defined]


def state_of(experiment: Experiment, run: Path) -> RecallingState:
    progress, folder = initial_progress(experiment), run / checkpoint.DIRECTORY
    restore_learner(progress, checkpoint.load_newest(folder, pytest.fail), folder)
    return progress.learner_state  # type: ignore[no-any-return]


def numbers(state: RecallingState) -> list[Tensor]:
    """All that can be read of it."""
    past = state.past
    moments: list[dict[str, Any]] = [moment for head in state.heads for moment in head.optimizer["state"].values()]
    read = [past.newest(torch.tensor([s]), int(past.live()[s])) for s in range(2)]
    return [
        *state.meta.values(),
        *(head.weights["where"] for head in state.heads),
        *(moment[name] for moment in moments for name in ("exp_avg", "exp_avg_sq", "step")),
        past.added,
        past.begun,
        *(value for rows in read for value in rows.values()),
    ]


def assert_same(one: RecallingState, other: RecallingState) -> None:
    ours, theirs = numbers(one), numbers(other)
    assert len(ours) == len(theirs) > 10
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_killed_run_goes_on_to_the_bits_of_an_undisturbed_one(
    experiment: Experiment, whole: Path, tmp_path: Path
) -> None:
    """An iteration after a checkpoint; the rings of 40 rows are full after 4 iterations, so that rows gave way before
    and after."""
    assert "past: room for 40 rows in each of 2 slots, 0.0 MiB on cpu" in (whole.parent / "said").read_text()
    for end in (7, None):
        run_to(experiment, tmp_path / "killed", end)
    expected, found = (state_of(experiment, run) for run in (whole, tmp_path / "killed"))
    assert expected.past.added.tolist() == [90, 90]
    assert_same(expected, found)


def test_a_checkpoint_whose_rows_are_damaged_is_passed_over(
    experiment: Experiment, whole: Path, tmp_path: Path
) -> None:
    run_to(experiment, tmp_path / "killed", 7)
    folder = tmp_path / "killed" / checkpoint.DIRECTORY
    newest = max(folder.glob("replay_*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-1])
    said = run_to(experiment, tmp_path / "killed")
    assert f"{newest.name} is damaged" in said
    assert "continuing" in said
    assert "after 4 iterations" in said
    assert_same(state_of(experiment, whole), state_of(experiment, tmp_path / "killed"))


def test_checkpoints_write_what_was_added_and_files_go_that_none_needs(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows the rings hold, a checkpoint writes those of its two iterations: 20 a slot, 4 numbers each."""
    written: dict[str, list[int]] = {"replay": [], "iteration": []}
    save = checkpoint.save

    def counted(path: Path, content: dict[str, Any]) -> None:
        save(path, content)
        written["replay" if "additions" in content else "iteration"].append(path.stat().st_size)

    monkeypatch.setattr(checkpoint, "save", counted)
    run_to(experiment, tmp_path / "run")
    added = written["replay"]
    assert len(added) == 5  # after 2, 4, 6, 8 and 9
    assert max(added[:4]) - min(added[:4]) < 200
    assert added[4] < added[0]
    later = written["iteration"][2:]
    assert max(later) - min(later) < 600  # a name and two numbers for each file
    folder = tmp_path / "run" / checkpoint.DIRECTORY
    assert len(list(folder.glob("replay_*.ckpt"))) == 3  # the last two checkpoints reach back to iterations 5 and 6
    assert not list(folder.glob("*.new"))
