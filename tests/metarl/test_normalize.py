"""Running normalization of observations: numpy's moments, of training alone, that nothing but training moves."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from run_checks import TINY
from torch import Tensor
from torch.func import vmap

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.envs.api import EnvSpec
from metarl.envs.small.navigation import Navigation
from metarl.networks.mlp import MLP
from metarl.networks.normalize import STATISTICS, initial, learned, merged, moments, normalized, updated
from metarl.networks.recurrent import RecurrentPolicy
from metarl.rollout import rollout
from metarl.runs.folder import create_run
from metarl.runs.session import execute
from metarl.runs.snapshot import load_progress
from metarl.seeds import stream
from metarl.train import Progress, train
from metarl.types import TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")
ROLLING = MLP((8,), normalize_obs=True)
SPEC = EnvSpec(3, 1, 5, terminates=False, has_success=False)
LEARNERS = [
    MAML(ROLLING, outer=TRPO()),
    MAML(ROLLING, outer=PPO(), estimator="dice", learn_inner_lr=True),
    MAML(replace(ROLLING, context_size=2), outer=PPO()),
    ProMP(ROLLING),
    Reptile(ROLLING),
    ESMAML(ROLLING, pairs=1),
    RL2(RecurrentPolicy(memory_size=8, normalize_obs=True), standardize_reward=True, epochs=2),
]
NAMES = ["trpo", "dice, learned rates", "cavia", "promp", "reptile", "es-maml", "rl2"]


def batch_of(obs: Tensor, valid: Tensor) -> TrajectoryBatch:
    """Of these observations [task env time obs], nothing else in it."""
    zeros, never = torch.zeros(valid.shape), torch.zeros_like(valid)
    action, clock = torch.zeros(*valid.shape, 1), torch.zeros_like(valid, dtype=torch.int64)
    return TrajectoryBatch(
        obs, action, zeros, never, never, clock, never, valid, zeros, None, obs, zeros, zeros
    )  # fmt: skip


def test_statistics_are_numpys_of_every_valid_step() -> None:
    """In three batches of different sizes and places; far from zero, where sums of squares lose their digits."""
    generator = torch.Generator().manual_seed(0)
    params, seen = initial(SPEC, torch.device("cpu")), []
    for size, place in ((2, 0.0), (5, 1e4), (3, -7.0)):
        obs = place + torch.tensor([1.0, 20.0, 1e-3]) * torch.randn(2, size, 4, 3, generator=generator)
        valid = torch.rand(2, size, 4, generator=generator) < 0.7
        seen.append(obs[valid].double().numpy())
        obs[~valid] = torch.nan  # no statistic may see them
        params = updated(params, [batch_of(obs, valid)])
    every = np.concatenate(seen)
    count, mean, squares = params[STATISTICS]
    assert count.tolist() == [len(every)] * 3
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(squares / count, every.var(0), rtol=1e-9)
    some = torch.randn(6, 2, 3, generator=generator)
    expected = ((some.double().numpy() - every.mean(0)) / np.sqrt(every.var(0) + 1e-8)).clip(-10, 10)
    np.testing.assert_allclose(normalized(params, some), expected, rtol=1e-4, atol=1e-5)


def test_what_was_not_seen_is_left_as_it_is_and_what_never_moved_is_clipped() -> None:
    params = initial(SPEC, torch.device("cpu"))
    obs = 100 * torch.randn(2, 4, 3)
    assert torch.equal(normalized(params, obs), obs)
    assert normalized({}, obs) is obs
    nothing = batch_of(torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 2, dtype=torch.bool))
    assert torch.equal(updated(params, [nothing])[STATISTICS], params[STATISTICS])
    constant = updated(params, [batch_of(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, dtype=torch.bool))])
    assert normalized(constant, torch.tensor([[1.0, 2.0, -5.0]])).tolist() == [[0.0, 10.0, -10.0]]


def test_samples_may_be_merged_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    always = torch.ones(1, 1, 8, dtype=torch.bool)
    first, second, third = (moments(batch_of(torch.randn(1, 1, 8, 3, generator=generator), always)) for _ in range(3))
    torch.testing.assert_close(merged(merged(first, second), third), merged(first, merged(third, second)))


def test_every_task_and_vmap_sees_the_same_statistics() -> None:
    state = MAML(ROLLING).init(SPEC, torch.Generator().manual_seed(0))
    obs = 3 + torch.randn(4, 2, 5, 3)
    state = state._replace(meta=updated(state.meta, [batch_of(obs, torch.ones(4, 2, 5, dtype=torch.bool))]))
    actor = MAML(ROLLING).actor(state, 4)
    many = ROLLING.side_by_side(actor, obs[:, :, 0])
    plain = replace(ROLLING, normalize_obs=False)
    by_hand = plain(learned(state.meta), normalized(state.meta, obs[:, :, 0]))
    torch.testing.assert_close(many.mean, by_hand.mean)
    torch.testing.assert_close(vmap(ROLLING)(actor, obs[:, :, 0]).mean, by_hand.mean)


@pytest.mark.parametrize("learner", LEARNERS, ids=NAMES)
def test_they_are_of_what_training_sampled_and_no_step_moves_them(
    learner: MAML, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three iterations they are numpy's moments of every observation of the batches; while a batch is sampled and
    learned from, they are those of before."""
    tasks, batches = Navigation(horizon=4), []
    env = tasks.make(2, 2, seed=0)
    progress = Progress(
        learner.init(tasks.spec, stream(0, "parameters")),
        *(stream(0, name) for name in ("tasks", "actions", "updates")),
    )

    def watched(env, act, actor, *args, **kwargs):
        statistics = (actor.params if isinstance(learner, RL2) else actor)[STATISTICS]
        while statistics.dim() > 2:
            assert torch.equal(statistics, statistics[:1].expand_as(statistics))
            statistics = statistics[0]
        assert torch.equal(statistics, progress.learner_state.meta[STATISTICS])
        batch, actor = rollout(env, act, actor, *args, **kwargs)
        batches.append(batch.obs[batch.valid].double().numpy())
        return batch, actor

    monkeypatch.setattr(sys.modules[train.__module__], "rollout", watched)
    train(learner, tasks, env, progress, iterations=3, episodes=2, begin=lambda: None, log=lambda _: None)
    every = np.concatenate(batches)
    most = 3 * (learner.adapt_steps + 1) * 2 * 2 * 2 * 4
    assert 0.9 * most < len(every) <= most  # who reaches the goal ends early
    count, mean, squares = progress.learner_state.meta[STATISTICS]
    assert count.tolist() == [len(every)] * 2
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(squares / count, every.var(0), rtol=1e-9)


# --- in a run ----------------------------------------------------------------------------------------

RUN = replace(TINY, learner=replace(TINY.learner, policy=ROLLING), iterations=4)
REMEMBERS = replace(RUN, learner=LEARNERS[-1], episodes=4, num_envs=2)


def state_of(experiment, run: Path, *stops: int) -> dict[str, Tensor]:
    """The meta-parameters after a run that was resumed at each of ``stops``."""
    for iterations in (*stops, experiment.iterations):
        part = replace(experiment, iterations=iterations)
        run = run if run.exists() else create_run(part, run.parent, run.name)
        assert execute(part, run, console=Console(file=io.StringIO())) == 0
    return load_progress(experiment, run, print).learner_state.meta


@pytest.mark.parametrize("experiment", [RUN, REMEMBERS], ids=["maml", "rl2"])
def test_a_resumed_run_has_the_same_bits_and_tests_leave_no_trace(experiment, tmp_path: Path) -> None:
    whole = state_of(experiment, tmp_path / "whole")
    resumed = state_of(experiment, tmp_path / "resumed", 1, 3)
    tested = state_of(replace(experiment, eval_interval=1, eval_tasks=2), tmp_path / "tested")
    assert whole[STATISTICS][0, 0] > 0
    for other in (resumed, tested):
        assert list(other) == list(whole)
        assert all(torch.equal(other[name], whole[name]) for name in whole)
