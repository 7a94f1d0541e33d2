"""Meta-testing: which tasks, how many episodes and steps, and the statistics over tasks."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.algorithms.maml import MAML, MAMLState
from metarl.algorithms.rl2 import RL2
from metarl.envs.locomotion.half_cheetah_vel import HalfCheetahVel
from metarl.envs.registry import TaskDistribution
from metarl.envs.small.navigation import Navigation
from metarl.evaluate import HELD_OUT_SEED, held_out_tasks, meta_test
from metarl.metrics import by_episode
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.reports.evaluate_run import Protocol
from metarl.reports.statistics import estimate, interquartile_mean
from metarl.rollout import rollout
from metarl.runs.experiment import Experiment
from metarl.seeds import stream
from metarl.types import Experience, Params, TrajectoryBatch

# --- statistics ----------------------------------------------------------------------------------


def test_the_interquartile_mean_by_hand():
    """Of 1 ... 8 and 100 in place of 8 the middle four are 3 4 5 6. Of five numbers each end loses 5/4: the
    second and the fourth count 3/4, so (3/4 * 2 + 3 + 3/4 * 4) / 2.5 = 3.
    """
    assert interquartile_mean(np.array([4.0, 1.0, 100.0, 3.0, 2.0, 7.0, 5.0, 6.0])) == 4.5
    assert interquartile_mean(np.array([1.0, 2.0, 3.0, 4.0, 50.0])) == pytest.approx(3.0, rel=1e-15)
    # six: 1.5 lost at each end, the second and the fifth count half: (.5 * 2 + 3 + 4 + .5 * 9) / 3
    assert interquartile_mean(np.array([9.0, 2.0, 3.0, 4.0, -70.0, 80.0])) == pytest.approx(12.5 / 3, rel=1e-15)
    assert interquartile_mean(np.array([7.0])) == 7.0


@pytest.mark.parametrize("count", [4, 8, 40, 100])
def test_the_interquartile_mean_is_scipys_trimmed_mean_where_quarters_are_whole(count: int):
    stats = pytest.importorskip("scipy.stats")
    scores = np.random.default_rng(count).standard_cauchy((5, count))
    np.testing.assert_allclose(interquartile_mean(scores), stats.trim_mean(scores, 0.25, axis=-1), rtol=1e-12)
    assert np.abs(scores.mean(-1) - interquartile_mean(scores)).max() > 0.01  # negative control: not the mean


def test_an_estimate_is_the_statistic_within_its_interval():
    scores = np.random.default_rng(0).normal(3.0, 2.0, size=40)
    mean, middle = estimate(scores, iqm=False), estimate(scores, iqm=True)
    assert mean.value == pytest.approx(scores.mean())
    assert middle.value == pytest.approx(interquartile_mean(scores))
    # the interval of a mean of 40 is about +- 1.96 * s / sqrt(40)
    width = 2 * 1.96 * scores.std() / 40**0.5
    assert mean.high - mean.low == pytest.approx(width, rel=0.1)
    for found in (mean, middle):
        assert found.low < found.value < found.high
    assert estimate(scores, iqm=False) == mean, "the same scores have the same interval"
    narrow = estimate(scores, iqm=False, confidence=0.5)
    assert narrow.high - narrow.low < 0.5 * (mean.high - mean.low)
    assert estimate(np.full(5, 2.0), iqm=True) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("iqm", [False, True])
def test_the_interval_covers_the_truth_as_often_as_it_says(iqm: bool):
    """300 studies of 30 tasks with a true mean (and interquartile mean) of 5. A percentile interval of 30
    scores covers some 93 %; 88 % to 98 % is three standard errors (1.4 %) and more.
    """
    rng = np.random.default_rng(1)
    intervals = [estimate(rng.normal(5.0, 3.0, size=30), iqm=iqm, resamples=400) for _ in range(300)]
    covered = np.mean([low <= 5.0 <= high for _, low, high in intervals])
    assert 0.88 <= covered <= 0.98
    missed = np.mean([low <= 6.5 <= high for _, low, high in intervals])  # negative control: not the truth
    assert missed < 0.5


def test_the_interval_is_over_tasks():
    """One score a task: twice the tasks, 1 / sqrt(2) of the width."""
    scores = np.random.default_rng(2).normal(size=50)
    once, twice = estimate(scores, iqm=False), estimate(np.tile(scores, 4), iqm=False)
    assert (twice.high - twice.low) / (once.high - once.low) == pytest.approx(0.5, rel=0.1)


# --- held-out tasks ------------------------------------------------------------------------------


def training_tasks(task: TaskDistribution, seed: int, iterations: int = 5, num_tasks: int = 40) -> Tensor:
    """What ``train`` draws for a run of this seed."""
    generator = stream(seed, "tasks")
    return torch.cat([task.sample(num_tasks, generator) for _ in range(iterations)])


def shared(some: Tensor, others: Tensor) -> int:
    rows = {tuple(np.atleast_1d(row)) for row in some.numpy()}
    return sum(tuple(np.atleast_1d(row)) in rows for row in others.numpy())


CONTINUOUS = {
    "navigation, published": Navigation.presets["maml2017"],
    "navigation, drawn": Navigation(max_step=0.05),
    "half-cheetah velocity, published": HalfCheetahVel.presets["maml2017"],
    "half-cheetah velocity, drawn": HalfCheetahVel.presets["v5"],
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_no_task_of_a_training_run_is_held_out(name: str):
    task = CONTINUOUS[name]
    held_out = held_out_tasks(task, 40)
    assert len(held_out) == 40
    assert shared(held_out, held_out) == 40  # negative control: the comparison finds what is equal
    for seed in range(10):
        assert shared(held_out, training_tasks(task, seed)) == 0


def test_held_out_tasks_are_always_the_same_and_more_of_them_begin_with_the_fewer():
    for task in (Navigation.presets["maml2017"], Navigation(max_step=0.05)):
        assert torch.equal(held_out_tasks(task, 20), held_out_tasks(task, 20))
        assert torch.equal(held_out_tasks(task, 40)[:20], held_out_tasks(task, 20))


def test_published_tasks_are_the_papers_and_others_are_drawn():
    """MAML 2017: numpy's RandomState(1), uniform in [-.5, .5]^2; its first two numbers are .4170 and .7203."""
    first = held_out_tasks(Navigation.presets["maml2017"], 40)[0]
    assert first.tolist() == pytest.approx([0.417022 - 0.5, 0.720324 - 0.5], abs=1e-5)
    other = held_out_tasks(Navigation(max_step=0.05), 40)[0]
    assert torch.equal(other, Navigation().sample(40, stream(HELD_OUT_SEED, "tasks"))[0])


def test_no_run_may_have_the_seed_of_the_held_out_tasks():
    """It would train on them: the same stream by the same name."""
    task = Navigation(max_step=0.05)
    assert shared(held_out_tasks(task, 40), training_tasks(task, HELD_OUT_SEED, iterations=1)) == 40
    with pytest.raises(ValueError, match="seed"):
        Experiment(task=task, learner=MAML(), seed=HELD_OUT_SEED)


# --- the protocol --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spy(MAML):
    """MAML that writes down how it is used."""

    policy: GaussianMLP = field(default_factory=lambda: GaussianMLP((4,)))
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def credit(self, state: MAMLState, batch: TrajectoryBatch) -> TrajectoryBatch:
        credited = super().credit(state, batch)
        self.calls.append(("credit", credited))
        return credited

    def adapt(self, state: MAMLState, actor: Params, batch: TrajectoryBatch, *, scale: float = 1.0) -> Params:
        adapted = super().adapt(state, actor, batch, scale=scale)
        self.calls.append(("adapt", (actor, batch, scale, adapted)))
        return adapted

    def update(self, state: MAMLState, experience: Experience, generator: torch.Generator) -> Any:
        raise AssertionError("a test must not change the meta-parameters")


NUM_TASKS, NUM_EPISODES = 3, 5


def run_meta_test(learner: MAML, scales: list[float], *, task: Navigation | None = None, seed: int = 0) -> Any:
    task = Navigation(horizon=12) if task is None else task
    env = task.make(NUM_TASKS, NUM_EPISODES, seed=7)
    state = learner.init(env.spec, torch.Generator().manual_seed(0))
    return meta_test(learner, state, env, held_out_tasks(task, NUM_TASKS), scales=scales, seed=seed), state


@pytest.mark.parametrize("scales", [[], [1.0], [1.0, 0.5, 0.5]], ids=str)
def test_it_takes_one_inner_step_a_scale_and_plays_before_and_after_each(scales: list[float]):
    learner = Spy(inner_lr=0.5)
    result, state = run_meta_test(learner, scales)
    assert result.returns.shape == (NUM_TASKS, len(scales) + 1, NUM_EPISODES)
    assert result.successes.shape == result.returns.shape
    assert [name for name, _ in learner.calls] == ["credit", "adapt"] * len(scales)
    steps = [content for name, content in learner.calls if name == "adapt"]
    assert [scale for _, _, scale, _ in steps] == scales
    # the first step starts from the meta-parameters, each later one where the one before arrived
    starts = [actor for actor, _, _, _ in steps]
    for name, value in state.meta.items():
        if steps:
            assert torch.equal(starts[0][name], value.expand(NUM_TASKS, *value.shape))
        for step in range(1, len(steps)):
            assert torch.equal(starts[step][name], steps[step - 1][3][name])
            assert not torch.equal(starts[step][name], starts[step - 1][name])


def test_every_step_adapts_on_fresh_credited_experience_and_halves_as_asked():
    learner = Spy(inner_lr=0.5)
    run_meta_test(learner, [1.0, 0.5])
    (_, first), (_, (_, batch, _, _)), (_, second), (_, (actor, later, _, adapted)) = learner.calls
    assert batch is first
    assert later is second
    assert not torch.equal(first.action, second.action)
    assert (first.advantage != 0).any()
    whole = replace(learner, calls=[]).adapt(MAMLState(row(actor), {}), actor, later)
    for name in actor:
        torch.testing.assert_close(adapted[name] - actor[name], (whole[name] - actor[name]) / 2, rtol=1e-3, atol=1e-6)


def row(actor: Params) -> Params:
    return {name: value[0] for name, value in actor.items()}


def test_every_world_plays_exactly_one_episode_however_short():
    """Goals under the start: a world of Navigation ends the moment it is within .01; all others run to the
    limit. Each still counts once, so short episodes are not over-represented.
    """
    learner = Spy(inner_lr=0.5)
    task = Navigation(horizon=30, max_step=0.02)
    env = task.make(NUM_TASKS, NUM_EPISODES, seed=7)
    state = learner.init(env.spec, torch.Generator().manual_seed(0))
    goals = torch.tensor([[0.0, 0.0], [0.02, 0.0], [5.0, 5.0]])
    result = meta_test(learner, state, env, goals, scales=[1.0], seed=0)
    batch = next(content for name, content in learner.calls if name == "credit")
    ends = ((batch.terminated | batch.truncated) & batch.valid).sum(-1)
    assert (ends == 1).all()
    lengths = batch.valid.sum(-1)
    assert lengths.min() < 30
    assert (lengths[2] == 30).all()
    # more episodes than that were played: the worlds that were done went on, idle and not counted
    assert ((batch.terminated | batch.truncated).sum(-1) > 1).any()
    first_episode = batch.reward.masked_fill(~batch.valid, 0.0).sum(-1)
    torch.testing.assert_close(result.returns[:, 0], first_episode)
    assert (batch.reward.sum(-1) - first_episode).abs().max() > 0.01
    assert torch.equal(result.successes[:, 0], batch.terminated.logical_and(batch.valid).any(-1))
    assert result.successes[:2].any()
    assert not result.successes[2].any()


@pytest.mark.parametrize("min_steps", [0, 100])
def test_further_episodes_are_for_adaptation_and_not_for_the_returns(min_steps: int):
    """Five worlds on a goal that the first steps reach are done within a few steps; where 100 are asked for, they
    play on, but what is reported stays the first episode of each world."""
    learner, task = Spy(inner_lr=0.5), Navigation(horizon=30, max_step=0.02)
    env = task.make(NUM_TASKS, NUM_EPISODES, seed=7)
    state = learner.init(env.spec, torch.Generator().manual_seed(0))
    goals = torch.zeros(NUM_TASKS, 2)
    result = meta_test(learner, state, env, goals, scales=[1.0], seed=0, min_steps=min_steps)
    batch = next(content for name, content in learner.calls if name == "credit")
    assert (batch.valid.sum((1, 2)) >= min_steps).all()
    for task_index in range(NUM_TASKS):
        for world in range(NUM_EPISODES):
            ended = batch.terminated[task_index, world] | batch.truncated[task_index, world]
            length = int(ended.int().argmax()) + 1
            earned = batch.reward[task_index, world, :length].sum().item()
            assert result.returns[task_index, 0, world].item() == pytest.approx(earned, rel=1e-5)
    played_on = not torch.allclose(result.returns[:, 0], (batch.reward * batch.valid).sum(-1))
    assert played_on == (min_steps > 0)


def test_invalid_steps_earn_nothing_and_solve_nothing(monkeypatch: pytest.MonkeyPatch):
    """World 2 of task 1 fails after five steps; what its record says from there on is no experience."""

    def rollout_with_a_broken_world(*inputs: Any, **options: Any) -> tuple[TrajectoryBatch, Params]:
        batch, actor = rollout(*inputs, **options)
        batch.valid[1, 2, 5:] = False
        batch.reward[1, 2, 5:], batch.success[1, 2, 5:] = 100.0, True
        played.append(batch)
        return batch, actor

    played: list[TrajectoryBatch] = []
    monkeypatch.setattr("metarl.evaluate.rollout", rollout_with_a_broken_world)
    result, _ = run_meta_test(Spy(inner_lr=0.5), [])
    expected = played[0].reward[1, 2, :5].sum().item()
    assert result.returns[1, 0, 2].item() == pytest.approx(expected, rel=1e-5)
    assert not result.successes[1, 0, 2]


def test_returns_are_undiscounted_and_of_valid_steps_alone():
    learner = Spy(discount=0.5, inner_lr=0.5)
    result, _ = run_meta_test(learner, [1.0])
    batch = next(content for name, content in learner.calls if name == "credit")
    for task in range(NUM_TASKS):
        for env in range(NUM_EPISODES):
            steps = zip(batch.reward[task, env].tolist(), batch.valid[task, env].tolist(), strict=True)
            by_hand = sum(reward for reward, valid in steps if valid)
            assert result.returns[task, 0, env].item() == pytest.approx(by_hand, rel=1e-5)


def test_testing_leaves_the_meta_parameters_alone_and_repeats_itself():
    learner = Spy(inner_lr=0.5)
    one, state = run_meta_test(learner, [1.0, 0.5])
    fresh = learner.init(Navigation().spec, torch.Generator().manual_seed(0))
    assert all(torch.equal(state.meta[name], fresh.meta[name]) for name in fresh.meta)
    again, _ = run_meta_test(learner, [1.0, 0.5])
    assert torch.equal(one.returns, again.returns)
    other, _ = run_meta_test(learner, [1.0, 0.5], seed=1)
    assert not torch.equal(one.returns, other.returns)


def test_the_policy_tested_is_the_one_that_training_would_have_adapted():
    """Before any step and after one: the same rollouts with the same draws, written as the loop of ``train``."""
    learner, task = MAML(policy=GaussianMLP((4,)), inner_lr=0.5), Navigation(horizon=12)
    result, state = run_meta_test(learner, [1.0], task=task)
    env = task.make(NUM_TASKS, NUM_EPISODES, seed=7)
    env.set_tasks(held_out_tasks(task, NUM_TASKS))
    generator = stream(0, "meta-test actions")
    actor = learner.actor(state, NUM_TASKS)
    pre, actor = rollout(env, learner.act, actor, 1, generator)
    actor = learner.adapt(state, actor, learner.credit(state, pre))
    post, _ = rollout(env, learner.act, actor, 1, generator)
    expected = torch.cat([by_episode(batch, batch.reward, 1) for batch in (pre, post)], dim=1)
    assert torch.equal(result.returns, expected)


def test_the_papers_schedule_halves_the_steps_after_the_first():
    experiment = Experiment(Navigation(), MAML())
    assert Protocol(steps=3).plan(experiment).scales == [1.0, 0.5, 0.5]
    assert Protocol(steps=3, schedule="constant").plan(experiment).scales == [1.0, 1.0, 1.0]
    assert Protocol(steps=1).plan(experiment).scales == [1.0]


def test_the_defaults_of_a_test_come_from_the_experiment():
    maml = Protocol().plan(Experiment(Navigation(), MAML()))
    assert (maml.tasks, maml.scales, maml.trial) == (40, [1.0, 0.5, 0.5], 1)
    assert (maml.episodes, maml.min_steps) == (40, 4000)  # Finn et al. 2017: 40 episodes of 100 steps
    assert maml.steps == ["before", "1 step", "2 steps", "3 steps"]
    rl2 = Protocol().plan(Experiment(Navigation(), RL2(), num_envs=4, episodes=12))
    assert (rl2.tasks, rl2.scales, rl2.trial, rl2.episodes, rl2.min_steps) == (1000, [], 3, 1, 0)
    assert rl2.steps == ["episode 1", "episode 2", "episode 3"]
    assert Protocol(steps=5).plan(Experiment(Navigation(), RL2())).trial == 5


def test_returns_are_told_apart_by_episode():
    """Two worlds of one task; episodes end after steps 2, 3 and 6 (terminated, truncated, terminated).

    World 0: rewards 1 2 | 3 | 4 5 6, so 3, 3 and 15. World 1 the same, but its last three steps are not valid.
    """
    reward = torch.arange(1.0, 7.0).expand(1, 2, 6)
    terminated = torch.tensor([0, 1, 0, 0, 0, 1]).bool().expand(1, 2, 6)
    truncated = torch.tensor([0, 0, 1, 0, 0, 0]).bool().expand(1, 2, 6)
    valid = torch.ones(1, 2, 6, dtype=torch.bool)
    valid[0, 1, 3:] = False
    blank = torch.zeros(1, 2, 6)
    batch = TrajectoryBatch(
        obs=blank.unsqueeze(-1),
        action=blank.unsqueeze(-1),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        clock=blank.long(),
        success=blank.bool(),
        valid=valid,
        log_prob=blank,
        dist=None,
        next_obs=blank.unsqueeze(-1),
        advantage=blank,
        target=blank,
    )
    assert by_episode(batch, reward, 3).tolist() == [[[3.0, 3.0], [3.0, 3.0], [15.0, 0.0]]]
    assert by_episode(batch, reward, 2).tolist() == [[[3.0, 3.0], [3.0, 3.0]]]  # later episodes do not count


def test_a_trial_is_one_rollout_and_a_step_an_episode():
    learner, task = RL2(policy=RecurrentPolicy(memory_size=8)), Navigation(horizon=12)
    state = learner.init(task.spec, torch.Generator().manual_seed(0))
    tasks = held_out_tasks(task, NUM_TASKS)

    def play(**options: Any) -> Tensor:
        env = task.make(NUM_TASKS, NUM_EPISODES, seed=7)
        return meta_test(learner, state, env, tasks, episodes=3, seed=0, **options).returns

    sampled = play()
    assert sampled.shape == (NUM_TASKS, 3, NUM_EPISODES)
    env = task.make(NUM_TASKS, NUM_EPISODES, seed=7)
    env.set_tasks(tasks)
    batch, _ = rollout(env, learner.act, learner.actor(state, NUM_TASKS), 3, stream(0, "meta-test actions"))
    assert torch.equal(sampled, by_episode(batch, batch.reward, 3))
    greedy = play(greedy=True)
    assert torch.equal(greedy[..., :1].expand_as(greedy), greedy)  # no noise in actions or resets: all worlds agree
    assert not torch.equal(sampled[..., :1].expand_as(sampled), sampled)
