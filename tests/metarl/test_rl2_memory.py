"""RL²: what the policy is fed and remembers, and that replay repeats it. Learning: test_rl2_learning.py."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from rl2_checks import SpyPolicy, equal, play, seeded, trained
from torch import Tensor
from torch.utils._pytree import tree_map
from toy_tasks import Echo

from metarl.algorithms.rl2 import RL2, RL2State
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.losses.trials import trial_loss
from metarl.networks.memory import MEMORIES
from metarl.networks.recurrent import RecurrentPolicy
from metarl.rollout import rollout
from metarl.types import TrajectoryBatch

CPU = torch.device("cpu")
REMEMBERING = [name for name, memory in MEMORIES.items() if memory.sees_history]
pytestmark = pytest.mark.usefixtures("one_thread")


def at(learner: RL2, batch: TrajectoryBatch, t: int) -> Tensor:
    """The inputs at step ``t`` [world in], put together by hand."""
    if t == 0:
        shape = batch.reward.shape[:2]
        history = (torch.zeros_like(batch.action[:, :, 0]), torch.zeros(*shape, 1), torch.zeros(*shape, 1))
    else:
        ended = batch.terminated[:, :, t - 1] | batch.truncated[:, :, t - 1]
        reward = learner.reward_scale * batch.reward[:, :, t - 1]
        history = (batch.action[:, :, t - 1], reward.unsqueeze(-1), ended.float().unsqueeze(-1))
    return torch.cat([batch.obs[:, :, t], *history], dim=-1).flatten(0, 1)


# --- what the policy is fed


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
def test_the_policy_is_fed_exactly_the_step_before_within_and_across_episodes(discrete: bool):
    """Three worlds with episodes of 2 (terminated), 3 (truncated) and 1 steps; rewards 1000 episode + step, so that
    none equals another. Every episode's last reward, action and end are fed at the first step of the next one.
    """
    learner = RL2(policy=SpyPolicy(memory_size=4), reward_scale=0.5)
    tasks = Echo(horizon=3, discrete=discrete)
    batch = play(
        learner,
        tasks,
        trained(learner, tasks.spec),
        num_envs=1,
        episodes=4,
        task=torch.tensor([2.0, 9.0, 1.0]),
    )
    seen = torch.stack(learner.policy.inputs_seen).squeeze(2)  # [time world in]
    assert len(seen) == 12
    lengths = [2, 3, 1]
    for world, length in enumerate(lengths):
        for t in range(12):
            obs, action, reward, ended = seen[t, world].split([2, 2, 1, 1])
            assert obs.tolist() == [t // length, t % length]
            if t == 0:
                assert torch.cat([action, reward, ended]).eq(0).all()
                continue
            before = t - 1
            assert torch.equal(action, batch.action[world, 0, before])
            assert reward == 0.5 * (1000 * (before // length + 1) + before % length + 1)
            assert ended == float(before % length == length - 1)
    # flags of the episodes that ended before the last step: 5 of 2 steps, 3 of 3, 11 of 1
    assert seen[..., -1].sum(0).tolist() == [5, 3, 11]


def test_an_end_is_fed_whether_the_episode_terminated_or_was_truncated():
    learner = RL2(policy=RecurrentPolicy(memory_size=4))
    tasks = Echo(horizon=3)
    batch = play(learner, tasks, trained(learner, tasks.spec), num_envs=1, task=torch.tensor([3.0, 9.0, 2.0]))
    assert batch.terminated[0, 0].any()
    assert not batch.terminated[1, 0].any()
    assert batch.truncated[1, 0].sum() == 3
    expected = learner.policy.inputs(
        batch.obs[:, :, 1:],
        batch.action[:, :, :-1],
        batch.reward[:, :, :-1],
        (batch.terminated | batch.truncated)[:, :, :-1],
    )
    for t in range(1, 9):
        assert torch.equal(expected[:, :, t - 1].flatten(0, 1), at(learner, batch, t))


def test_without_memory_the_observation_is_all_that_is_fed():
    learner = RL2(policy=SpyPolicy(memory="none", memory_size=4))
    tasks = Echo(horizon=3)
    batch = play(learner, tasks, trained(learner, tasks.spec))
    seen = torch.cat(learner.policy.inputs_seen, dim=1).unflatten(0, (3, 2))
    assert torch.equal(seen, batch.obs)


# --- what is remembered


@torch.no_grad()
@pytest.mark.parametrize("memory", REMEMBERING)
def test_memory_is_carried_across_the_episodes_of_a_trial_and_empty_at_its_start(memory: str):
    """A bandit's observation is constant and each pull an episode, so memory alone tells its steps apart. The first
    distribution of a trial is to the last bit that of an empty memory; the one after an episode's end is that of the
    memory carried over it, and not that of an empty one fed the same.
    """
    learner = RL2(policy=RecurrentPolicy(memory, memory_size=8))
    tasks = Bandit(arms=3)
    state = trained(learner, tasks.spec)
    for seed in (0, 1):  # a second trial begins like the first
        batch = play(learner, tasks, state, episodes=5, seed=seed)
        assert batch.truncated.all()
        carried = learner.policy.empty_memory(6, CPU)
        for t in range(5):
            inputs, empty = at(learner, batch, t).unsqueeze(1), learner.policy.empty_memory(6, CPU)
            fresh, _, _ = learner.policy(state.meta, inputs, empty)
            expected, _, carried = learner.policy(state.meta, inputs, carried)
            acted = batch.dist.log_probs[:, :, t].flatten(0, 1)
            assert torch.equal(acted, expected.log_probs.squeeze(1))
            if t == 0:
                assert torch.equal(acted, fresh.log_probs.squeeze(1))
            else:
                assert (acted - fresh.log_probs.squeeze(1)).abs().max() > 1e-3


def test_an_actor_carries_its_memory_on_only_where_it_is_passed_on():
    """Given again, it goes on with the trial; a new actor begins another."""
    learner = RL2(policy=SpyPolicy(memory_size=4))
    tasks = Bandit(arms=2)
    state = trained(learner, tasks.spec)
    env = tasks.make(2, 3, seed=0)
    env.set_tasks(tasks.sample(2, seeded()))
    actor = learner.actor(state, 2)
    assert actor.memory is None
    _, at_the_end = rollout(env, learner.act, actor, 3, seeded())
    assert actor.memory is None
    assert at_the_end.memory.shape == (6, 4)
    rollout(env, learner.act, at_the_end, 1, seeded())
    rollout(env, learner.act, learner.actor(state, 2), 1, seeded())
    memories = learner.policy.memories_seen
    assert memories[0].eq(0).all()
    assert torch.equal(memories[3], at_the_end.memory)
    assert memories[4].eq(0).all()


def test_tasks_and_worlds_do_not_hear_of_each_other():
    """Another reward in one world changes what is said of that world's later steps alone."""
    learner = RL2(policy=RecurrentPolicy(memory_size=8))
    tasks = TabularMDP(states=3, actions=2, horizon=3)
    state = trained(learner, tasks.spec)
    batch = play(learner, tasks, state)
    reward = batch.reward.clone()
    reward[1, 0, 4] += 1.0
    before, after = (learner.replay(state, b) for b in (batch, batch._replace(reward=reward)))
    changed = (after.dist.log_probs != before.dist.log_probs).any(-1)
    expected = torch.zeros_like(changed)
    expected[1, 0, 5:] = True
    assert torch.equal(changed, expected)
    assert torch.equal(after.value != before.value, expected)


# --- replay


TASKS = {
    "discrete": TabularMDP(states=4, actions=3, horizon=4),
    "continuous": Navigation(horizon=4),
    "ends early": Echo(horizon=4, pay=1e-3, discrete=False),
}


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("standardize", [False, True])
def test_replay_gives_what_the_rollout_said(memory: str, kind: str, standardize: bool):
    """3 episodes of 4 steps, in pieces of 1, 3, 7, 12 steps or as a whole: PPO's first ratio is 1 to 1e-5."""
    policy = RecurrentPolicy(memory, memory_size=8, encoder_sizes=(5,))
    learner = RL2(policy=policy, reward_scale=0.5, standardize_reward=standardize)
    tasks = TASKS[kind]
    state = trained(learner, tasks.spec)
    batch = play(learner, tasks, state)
    assert batch.reward.shape == (3, 2, 12)
    for bptt_steps in (0, 1, 3, 7, 12, 100):
        dist, value, _ = replace(learner, bptt_steps=bptt_steps).replay(state, batch)
        torch.testing.assert_close(dist.log_prob(batch.action), batch.log_prob, rtol=1e-5, atol=1e-5)
        for leaf, acted in zip(dist, batch.dist, strict=True):
            torch.testing.assert_close(leaf, acted, rtol=1e-5, atol=1e-5)
        assert value.shape == batch.reward.shape
    # negative control: with rewards or actions a step late, or no ends, what a memory says is something else
    for other in (
        batch._replace(reward=batch.reward.roll(1, dims=2)),
        batch._replace(action=batch.action.roll(1, dims=2)),
        batch._replace(terminated=torch.zeros_like(batch.valid), truncated=torch.zeros_like(batch.valid)),
    ):
        changed = (learner.replay(state, other).dist[0] - batch.dist[0]).abs().max()
        assert changed > 1e-4 if memory != "none" else changed < 1e-5


def gradient_of(learner: RL2, state: RL2State, batch: TrajectoryBatch) -> Tensor:
    """Of a sum over log-probabilities and values with weights that tell the steps apart."""
    leaves = {name: x.clone().requires_grad_() for name, x in state.meta.items()}
    dist, value, _ = learner.replay(state._replace(meta=leaves), batch)
    weight = torch.randn(batch.reward.shape, generator=seeded(7))
    loss = (weight * (dist.log_prob(batch.action) + value)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()))])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("memory", REMEMBERING)
def test_gradients_flow_back_over_as_many_steps_as_they_are_told(memory: str):
    """Values do not depend on ``bptt_steps``. Gradients do, and are those of a loop over the steps that cuts the
    graph at every third; the whole trial, at once or in a piece that is longer, is the loop that never does.
    """
    learner = RL2(policy=RecurrentPolicy(memory, memory_size=8))
    tasks = TabularMDP(states=3, actions=2, horizon=4)
    state = trained(learner, tasks.spec)
    batch = play(learner, tasks, state)
    num_steps, num_worlds = 12, 6
    weight = torch.randn(batch.reward.shape, generator=seeded(7)).flatten(0, 1)

    def by_hand(cut_every: int) -> Tensor:
        leaves = {name: x.clone().requires_grad_() for name, x in state.meta.items()}
        carried, loss = learner.policy.empty_memory(num_worlds, CPU), 0.0
        for t in range(num_steps):
            if t % cut_every == 0:
                carried = tree_map(Tensor.detach, carried)
            dist, value, carried = learner.policy(leaves, at(learner, batch, t).unsqueeze(1), carried)
            log_prob = dist.log_prob(batch.action[:, :, t].flatten(0, 1).unsqueeze(1))
            loss = loss + (weight[:, t : t + 1] * (log_prob + value)).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()))])

    values, gradients = {}, {}
    for bptt_steps in (0, 1, 3, 5, 12, 100):
        told = replace(learner, bptt_steps=bptt_steps)
        values[bptt_steps] = told.replay(state, batch).value
        gradients[bptt_steps] = gradient_of(told, state, batch)
        torch.testing.assert_close(values[bptt_steps], values[0], rtol=0, atol=1e-12)
        expected = by_hand(bptt_steps or num_steps)
        torch.testing.assert_close(gradients[bptt_steps], expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(gradients[12], gradients[0])
    assert torch.equal(gradients[100], gradients[0])
    for one, other in ((1, 3), (3, 5), (5, 0)):
        assert (gradients[one] - gradients[other]).norm() > 1e-3 * gradients[0].norm()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("memory", MEMORIES)
def test_the_gradient_is_the_slope_of_the_loss(memory: str):
    """(f(x + h d) - f(x - h d)) / 2h in 12 random directions, in float64, with ratios away from 1 and some of them
    clipped; through the memory over the whole trial.
    """
    learner = RL2(policy=RecurrentPolicy(memory, memory_size=4), clip=0.3)
    tasks = Echo(horizon=3, pay=1e-3, discrete=False)
    state = trained(learner, tasks.spec)
    batch = learner.credit(state, play(learner, tasks, state))
    assert not batch.valid.all()
    batch = batch._replace(target=batch.target - 0.3)
    sizes = [x.numel() for x in state.meta.values()]
    point = torch.cat([x.flatten() for x in state.meta.values()])
    point = point + 0.05 * torch.randn(len(point), generator=seeded(3))

    def loss(vector: Tensor, learner: RL2 = learner) -> Tensor:
        pieces = zip(state.meta.items(), vector.split(sizes), strict=True)
        meta = {name: x.view(like.shape) for (name, like), x in pieces}
        said = learner.replay(state._replace(meta=meta), batch)
        return trial_loss(said, batch, clip=0.3, value_weight=0.5, entropy_bonus=0.05)[0]

    def gradient(learner: RL2) -> Tensor:
        leaf = point.clone().requires_grad_()
        return torch.autograd.grad(loss(leaf, learner), leaf)[0]

    h = 1e-6
    directions = torch.randn(12, len(point), generator=seeded(4))
    slopes = torch.stack([(loss(point + h * d) - loss(point - h * d)) / (2 * h) for d in directions])
    assert (directions @ gradient(learner) - slopes).norm() < 1e-6 * slopes.norm()
    if memory != "none":  # negative control: cut after every step it is another vector
        assert (directions @ gradient(replace(learner, bptt_steps=1)) - slopes).norm() > 1e-2 * slopes.norm()


# --- fields


@pytest.mark.parametrize(
    ("make", "options"),
    [
        *[(RL2, {name: 0.0}) for name in ("reward_scale", "learning_rate", "clip", "max_grad_norm")],
        *[(RL2, {name: -1.0}) for name in ("reward_scale", "learning_rate", "clip", "max_grad_norm")],
        *[(RL2, {name: math.nan}) for name in ("reward_scale", "learning_rate", "clip", "max_grad_norm")],
        *[(RL2, {name: 0}) for name in ("epochs", "minibatches")],
        *[(RL2, {name: -0.1}) for name in ("entropy_bonus", "value_weight")],
        *[(RL2, {name: -1}) for name in ("anneal_updates", "bptt_steps")],
        *[(RL2, {name: x}) for name in ("discount", "gae_lambda", "value_lambda") for x in (-0.1, 1.1, math.nan)],
        (RecurrentPolicy, {"memory_size": 0}),
        (RecurrentPolicy, {"memory_size": 6, "memory": "attention"}),  # 4 heads
        (RecurrentPolicy, {"encoder_sizes": (3, 0)}),
        (RecurrentPolicy, {"init_std": 0.0}),
        (RecurrentPolicy, {"init_std": 1e-9}),
    ],
    ids=str,
)
def test_a_bad_field_is_named(make: Callable[..., Any], options: dict):
    name = next(iter(options))
    with pytest.raises(BadField, match=f"{name} is "):
        make(**options)


def test_the_ends_of_the_ranges_are_allowed():
    RL2(entropy_bonus=0.0, value_weight=0.0, anneal_updates=0, bptt_steps=0, epochs=1, minibatches=1)
    RL2(discount=0.0, gae_lambda=0.0, value_lambda=0.0)
    RL2(discount=1.0, gae_lambda=1.0, value_lambda=1.0)


# --- first weights


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("tasks", [Bandit(arms=4), Navigation()], ids=["discrete", "continuous"])
def test_an_untrained_policy_is_nearly_uniform_and_predicts_no_value(tasks: TaskDistribution, memory: str):
    learner = RL2(policy=RecurrentPolicy(memory, memory_size=16, init_std=0.7))
    state = learner.init(tasks.spec, seeded())
    batch = play(learner, tasks, state, episodes=2)
    dist, value, _ = learner.replay(state, batch)
    assert value.eq(0).all()
    if tasks.spec.discrete:
        assert (dist.log_probs.exp() - 0.25).abs().max() < 0.02
    else:
        assert dist.mean.abs().max() < 0.05
        torch.testing.assert_close(dist.log_std, torch.full_like(dist.log_std, math.log(0.7)))
    assert state.optimizer == {}
    assert state.num_updates == 0
    assert state.return_scale.shape == (0, 2)
    assert equal(learner.init(tasks.spec, seeded()).meta, state.meta)
    assert not equal(learner.init(tasks.spec, seeded(1)).meta, state.meta)
