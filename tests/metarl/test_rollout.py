"""The bookkeeping of a rollout, on worlds whose observations say which world, episode and step they are."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from earlier_rollout import as_before, earlier_rollout
from run_checks import TINY, run_quietly
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.utils._pytree import tree_leaves

from metarl import MAML, GaussianMLP
from metarl.envs.api import EnvSpec, TaskEnv
from metarl.envs.registry import find_preset
from metarl.envs.worlds import BatchedTaskEnv, Outcome
from metarl.networks.distributions import DiagGaussian
from metarl.networks.mlp import MLP
from metarl.rollout import rollout
from metarl.runs.folder import create_run
from metarl.types import Actor, Previous, TrajectoryBatch

NEVER = 10**6


class EchoWorlds:
    """Observation: (world, episode, step). Reward: 1000 world + 100 episode + step."""

    def __init__(self, lengths: list[int], fails_at: int) -> None:
        self.length, self.fails_at = torch.tensor(lengths), fails_at
        self.world = torch.arange(len(lengths))
        self.episode = torch.full((len(lengths),), -1)
        self.age = torch.zeros(len(lengths), dtype=torch.int64)
        self.steps = 0

    def set_tasks(self, task: Tensor) -> None:
        pass

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        self.episode += mask
        self.age *= ~mask

    def observe(self) -> Tensor:
        return torch.stack([self.world, self.episode, self.age], dim=1).float()

    def step(self, action: Tensor) -> Outcome:
        self.age += 1
        failed = (self.world == 0) & (self.steps == self.fails_at)
        self.steps += 1
        ended = (self.age >= self.length) & ~failed
        reward = (1000 * self.world + 100 * self.episode + self.age).float()
        return Outcome(reward.masked_fill(failed, 0.0), ended, ended & (self.episode == 1), failed)

    def state_dict(self) -> dict[str, Tensor]:
        raise AssertionError("a rollout does not save")

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        raise AssertionError("a rollout does not load")


def make_env(lengths: list[list[int]], *, horizon: int, fails_at: int = NEVER) -> BatchedTaskEnv:
    """``lengths`` [task env]: steps after which the episodes of each world terminate."""
    num_tasks, num_envs = len(lengths), len(lengths[0])
    flat = [length for row in lengths for length in row]
    spec = EnvSpec(3, 2, horizon, terminates=min(flat) < NEVER, has_success=True)
    return BatchedTaskEnv(EchoWorlds(flat, fails_at), spec, num_tasks, num_envs, seed=0)


class CountingPolicy:
    """Acts with (call, call + 0.5), writes down what it was shown, and counts its calls in the actor."""

    def __init__(self) -> None:
        self.obs: list[Tensor] = []
        self.previous: list[Previous] = []
        self.generators: list[torch.Generator] = []

    def __call__(
        self, actor: int, obs: Tensor, previous: Previous, generator: torch.Generator
    ) -> tuple[Tensor, DiagGaussian, int]:
        self.obs.append(obs.clone())
        self.previous.append(Previous(*(x.clone() for x in previous)))
        self.generators.append(generator)
        action = torch.tensor([actor, actor + 0.5]).expand(*obs.shape[:2], 2)
        scale = torch.tensor([[[0.1, -0.2]]]) + 0.01 * torch.arange(obs.shape[0])[:, None, None]
        return action, DiagGaussian(obs[..., :2] / 100 + actor, scale.expand(*obs.shape[:2], 2)), actor + 1


def play(env: TaskEnv, episodes: int) -> tuple[TrajectoryBatch, CountingPolicy]:
    policy = CountingPolicy()
    batch, calls = rollout(env, policy, 0, episodes, torch.Generator())
    assert calls == len(policy.obs) == batch.reward.shape[-1]
    return batch, policy


LENGTHS = [[3, NEVER], [5, 2], [NEVER, 4]]
WORLDS = [(task, i) for task in range(3) for i in range(2)]


@pytest.mark.parametrize(("task", "i"), WORLDS)
def test_every_field_is_at_its_task_world_and_time(task: int, i: int) -> None:
    """3 episodes of at most 5 steps in each of 3 x 2 worlds: 15 steps."""
    batch, _ = play(make_env(LENGTHS, horizon=5), 3)
    assert batch.reward.shape == (3, 2, 15)
    world, length = 2 * task + i, LENGTHS[task][i]
    episode, age, left = 0, 0, 3
    for t in range(15):
        at = (task, i, t)
        ends, times_out = age + 1 == length, age + 1 == 5
        assert batch.obs[at].tolist() == [world, episode, age]
        assert batch.next_obs[at].tolist() == [world, episode, age + 1]
        assert batch.action[at].tolist() == [t, t + 0.5]  # as given, though the environment clips it to 1
        assert batch.reward[at] == 1000 * world + 100 * episode + age + 1
        assert batch.terminated[at] == ends
        assert batch.truncated[at] == times_out
        assert batch.clock[at] == age
        assert batch.success[at] == (ends and episode == 1)
        assert batch.valid[at] == (left > 0)
        torch.testing.assert_close(batch.dist.mean[at], torch.tensor([world / 100 + t, episode / 100 + t]))
        torch.testing.assert_close(batch.dist.log_std[at], torch.tensor([0.1, -0.2]) + 0.01 * task)
        episode, age, left = (episode + 1, 0, left - 1) if ends or times_out else (episode, age + 1, left)
    assert left <= 0


def test_log_prob_is_that_of_the_action_summed_over_its_dimensions() -> None:
    batch, _ = play(make_env(LENGTHS, horizon=5), 2)
    reference = Independent(Normal(batch.dist.mean, batch.dist.log_std.exp()), 1)
    torch.testing.assert_close(batch.log_prob, reference.log_prob(batch.action))
    assert batch.log_prob.shape == batch.reward.shape


def test_credit_is_left_to_the_learner() -> None:
    batch, _ = play(make_env(LENGTHS, horizon=5), 1)
    assert batch.advantage.eq(0).all()
    assert batch.target.eq(0).all()
    assert batch.advantage.shape == batch.target.shape == batch.reward.shape


def test_next_obs_is_the_end_of_an_episode_and_obs_the_start_of_the_next() -> None:
    """Nowhere else do they part: what a step led to is what the next one acts in."""
    batch, _ = play(make_env(LENGTHS, horizon=5), 3)
    ended = (batch.terminated | batch.truncated)[..., :-1]
    led_to, acts_in = batch.next_obs[:, :, :-1], batch.obs[:, :, 1:]
    assert torch.equal(led_to[~ended], acts_in[~ended])
    assert torch.equal(acts_in[ended][:, 1], led_to[ended][:, 1] + 1)  # the next episode
    assert acts_in[ended][:, 2].eq(0).all()
    assert led_to[ended][:, 2].ge(2).all()  # after 2 to 5 steps, the true last observation


def test_the_policy_is_shown_the_step_before() -> None:
    """Zeros at the first step; then action, reward and flags of exactly the step before, across episodes."""
    batch, policy = play(make_env(LENGTHS, horizon=5), 2)
    for field, value in zip(Previous._fields, policy.previous[0], strict=True):
        assert value.eq(0).all(), field
        assert value.dtype == getattr(batch, field).dtype
        assert value.shape == getattr(batch, field)[:, :, 0].shape
    for t in range(1, 10):
        assert torch.equal(policy.obs[t], batch.obs[:, :, t])
        for field, value in zip(Previous._fields, policy.previous[t], strict=True):
            assert torch.equal(value, getattr(batch, field)[:, :, t - 1]), f"{field} at {t}"
    flags = torch.stack([p.terminated | p.truncated for p in policy.previous])
    assert flags.sum() > 6  # the policy saw episodes end


def test_the_policy_draws_from_the_generator_it_was_given() -> None:
    policy, generator = CountingPolicy(), torch.Generator()
    rollout(make_env(LENGTHS, horizon=5), policy, 0, 1, generator)
    assert all(g is generator for g in policy.generators)


@pytest.mark.parametrize("episodes", [1, 2, 3])
def test_every_world_contributes_exactly_its_episodes(episodes: int) -> None:
    """Worlds whose episodes last 3, 5, 5, 2, 5 and 4 steps: so many valid steps an episode, and then none."""
    batch, _ = play(make_env(LENGTHS, horizon=5), episodes)
    ended = (batch.terminated | batch.truncated) & batch.valid
    assert ended.sum(-1).eq(episodes).all()
    assert batch.valid.sum(-1).tolist() == [[3 * episodes, 5 * episodes], [5 * episodes, 2 * episodes],
                                            [5 * episodes, 4 * episodes]]  # fmt: skip
    assert torch.equal(batch.valid, batch.valid.cummin(-1).values)  # idle steps come last
    assert batch.obs[batch.valid][:, 1].max() == episodes - 1


@pytest.mark.parametrize(
    ("lengths", "horizon", "episodes", "num_steps"),
    [
        # the longest world needs 3 x 5 = 15 steps; looked at every 16
        ([[5, 3], [2, 4]], 100, 3, 16),
        ([[1]], 100, 1, 16),
        # 17 steps need a second look
        ([[17, 3]], 100, 1, 32),
        # nothing to cut: one world uses all its time, or there is less of it than one interval
        ([[NEVER, 3]], 40, 2, 80),
        ([[3, 3]], 10, 1, 10),
        # no world can end early
        ([[NEVER, NEVER]], 20, 2, 40),
    ],
)
def test_time_is_cut_when_every_world_is_through(
    lengths: list[list[int]], horizon: int, episodes: int, num_steps: int
) -> None:
    batch, policy = play(make_env(lengths, horizon=horizon), episodes)
    assert len(policy.obs) == num_steps
    for name, value in batch._asdict().items():
        leaves = value if name == "dist" else (value,)
        assert all(leaf.shape[2] == num_steps and leaf.is_contiguous() for leaf in leaves), name
    assert ((batch.terminated | batch.truncated) & batch.valid).sum(-1).eq(episodes).all()


def test_a_failed_episode_is_not_valid_and_counts_as_played() -> None:
    """World 0 fails in its second step: the episode carries nothing and is over, one more follows."""
    batch, _ = play(make_env([[NEVER, NEVER]], horizon=4, fails_at=1), 2)
    assert batch.valid[0, 0].tolist() == [False, False, True, True, True, True, False, False]
    assert batch.truncated[0, 0].tolist() == [False, True, False, False, False, True, False, False]
    assert batch.clock[0, 0].tolist() == [0, 1, 0, 1, 2, 3, 0, 1]
    assert batch.valid[0, 1].all()


def test_each_rollout_begins_with_a_reset() -> None:
    env = make_env(LENGTHS, horizon=5)
    play(env, 1)
    batch, _ = play(env, 1)
    assert batch.obs[:, :, 0, 2].eq(0).all()
    assert batch.clock[:, :, 0].eq(0).all()
    assert batch.obs[:, :, 0, 1].ge(1).all()  # the worlds' second episode or a later one


def test_experience_carries_no_graph() -> None:
    weight = torch.ones(2, requires_grad=True)

    def act(actor: Actor, obs: Tensor, previous: Previous, generator: torch.Generator) -> Any:
        dist = DiagGaussian(obs[..., :2] * weight, torch.zeros(1, 1, 2))
        return dist.sample(generator), dist, actor

    batch, _ = rollout(make_env(LENGTHS, horizon=5), act, None, 1, torch.Generator().manual_seed(0))
    assert not any(x.requires_grad for x in (batch.log_prob, batch.action, *batch.dist))


@pytest.fixture
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("fails", [False, True])
def test_torch_has_one_thread_during_the_rollout_and_its_own_number_after(fails: bool) -> None:
    seen = set()

    def watch(policy: CountingPolicy) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            seen.add(torch.get_num_threads())
            if fails:
                raise ZeroDivisionError
            return policy(*arguments)

        return act

    env = make_env(LENGTHS, horizon=5)
    if fails:
        with pytest.raises(ZeroDivisionError):
            rollout(env, watch(CountingPolicy()), 0, 1, torch.Generator())
    else:
        rollout(env, watch(CountingPolicy()), 0, 1, torch.Generator())
    assert seen == {1}
    assert torch.get_num_threads() == 2


def test_worlds_play_on_in_whole_episodes_until_their_task_has_enough_steps() -> None:
    """Episodes of 3 and 5 steps in task 0, of 5 and 2 in task 1; 20 valid steps asked for of each task."""
    env, policy = make_env([[3, NEVER], [NEVER, 2]], horizon=5), CountingPolicy()
    batch, _ = rollout(env, policy, 0, 1, torch.Generator(), min_steps=20)
    # Task 0: world 0 ends episodes after steps 3, 6, 9, 12 and world 1 after 5, 10; after step 10 the task has 20.
    # Task 1: world 0 after 5, 10, world 1 after 2, 4, 6, 8, 10; at the end of step 10 it has 20 as well.
    assert batch.valid[0].sum(-1).tolist() == [12, 10]
    assert batch.valid[1].sum(-1).tolist() == [10, 10]
    ended = batch.terminated | batch.truncated
    for valid, ends in zip(batch.valid.flatten(0, 1), ended.flatten(0, 1), strict=True):
        last = int(valid.sum()) - 1
        assert valid[: last + 1].all()  # no step is left out ...
        assert ends[last]  # ... and no episode is cut


def test_a_run_collects_the_steps_it_is_asked_for(tmp_path: Path) -> None:
    """2 iterations, each with a batch before and one after the inner step, of 2 tasks; an episode has 5 steps."""
    run = create_run(replace(TINY, min_steps=37), tmp_path, "run")
    run_quietly(replace(TINY, min_steps=37), run)
    *_, last = csv.DictReader((run / "progress.csv").read_text().splitlines())
    assert 2 * 2 * 2 * 37 <= int(last["env_steps"]) < 2 * 2 * 2 * (37 + 2 * 5)


@pytest.mark.parametrize(
    ("name", "preset", "horizon", "min_steps"),
    [
        ("half_cheetah_dir", "v5", 12, 0),
        ("walker2d_vel", "v5", 40, 0),  # falls
        ("navigation", "corner", 12, 0),
        ("navigation", "maml2017", 8, 40),  # plays on
        ("bandit", "k5", 1, 0),  # ends in every step
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_bits_are_those_of_a_loop_that_works_out_every_flag_in_every_step(
    name: str, preset: str, horizon: int, min_steps: int, fails: bool
) -> None:
    """The loop and the environment of ``earlier_rollout``; with ``fails``, world 1 is lost in the third step."""
    tasks = replace(find_preset(name, preset), horizon=horizon)
    learner = MAML(policy=MLP((8,)))
    actor = learner.actor(learner.init(tasks.spec, torch.Generator().manual_seed(0)), 2)

    def played(earlier: bool) -> tuple[TrajectoryBatch, TaskEnv]:
        env, calls = tasks.make(2, 3, seed=0, num_threads=1), []
        env.set_tasks(tasks.sample(2, torch.Generator().manual_seed(1)))

        def act(*arguments: Any) -> Any:
            calls.append(1)
            if fails and len(calls) == 3:
                lose(env.worlds)
            return learner.act(*arguments)

        play, env = (earlier_rollout, as_before(env)) if earlier else (rollout, env)
        return play(env, act, actor, 3, torch.Generator().manual_seed(2), min_steps=min_steps)[0], env

    (found, env), (expected, before) = played(False), played(True)
    steps = found.reward.shape[-1]
    assert not expected.valid[..., steps:].any()
    for field, one in found._asdict().items():
        for a, b in zip(tree_leaves(one), tree_leaves(getattr(expected, field)), strict=True):
            assert torch.equal(a, b[:, :, :steps]), field
    assert torch.equal(env.faults, before.faults)
    assert env.faults.sum() == env.num_diverged == (fails and name != "bandit")


def lose(worlds: Any) -> None:
    """Makes the state of world 1 no number; bandits have none."""
    if hasattr(worlds, "physics"):
        worlds.physics.bind("qpos")[1, 1] = torch.nan
    elif hasattr(worlds, "position"):
        worlds.position[1] = torch.nan


@pytest.mark.parametrize(("name", "preset"), [("walker2d_rand_params", "promp"), ("ant_dir", "maml2017")])
def test_worlds_that_are_through_rest_and_nothing_that_counts_changes(
    name: str, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = find_preset(name, preset)
    learner = MAML(policy=GaussianMLP((8,)))
    actor = learner.actor(learner.init(tasks.spec, torch.Generator().manual_seed(0)), 2)

    def play_once() -> TrajectoryBatch:
        env = tasks.make(2, 4, seed=0)
        env.set_tasks(tasks.sample(2, torch.Generator().manual_seed(1)))
        return rollout(env, learner.act, actor, 1, torch.Generator().manual_seed(2))[0]

    rested = play_once()
    monkeypatch.setattr(BatchedTaskEnv, "rest", lambda env, worlds: None)
    busy = play_once()
    assert torch.equal(rested.valid, busy.valid)
    assert not busy.valid.all()
    for field in ("obs", "next_obs", "action", "reward", "terminated", "truncated", "success", "log_prob", "clock"):
        assert torch.equal(getattr(rested, field)[busy.valid], getattr(busy, field)[busy.valid]), field
    assert not torch.equal(rested.next_obs, busy.next_obs)
