"""RL²: what the policy is fed and remembers, where credit goes, and one update against arithmetic and another PPO.

Learning is the subject of test_rl2_learning.py.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from toy_tasks import Echo

import metarl.algorithms.rl2 as rl2
from metarl.algorithms.rl2 import REWARD, RL2, RL2State, follow, scale_by_step
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.networks.distributions import Categorical
from metarl.networks.memory import MEMORIES
from metarl.networks.recurrent import ActorCritic, RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline
from metarl.rollout import rollout
from metarl.types import Params, TrajectoryBatch

CPU = torch.device("cpu")
REMEMBERING = [name for name, memory in MEMORIES.items() if memory.sees_history]

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trained(learner: RL2, spec: EnvSpec, *, seed: int = 0, size: float = 0.5) -> RL2State:
    """A state that training may have left: no weight is zero, actions have preferences, returns a scale at each of
    the 20 steps that trials had so far.
    """
    generator = seeded(seed)
    state = learner.init(spec, generator)
    meta = {name: x + size * torch.randn(x.shape, generator=generator) for name, x in state.meta.items()}
    return state._replace(meta=meta, return_scale=0.5 + torch.rand(20, 2, generator=generator), num_updates=3)


def play(
    learner: RL2,
    tasks: TaskDistribution,
    state: RL2State,
    *,
    num_tasks: int = 3,
    num_envs: int = 2,
    episodes: int = 3,
    seed: int = 0,
    task: Tensor | None = None,
) -> TrajectoryBatch:
    """One trial in every world."""
    env = tasks.make(num_tasks, num_envs, seed=seed)
    env.set_tasks(tasks.sample(num_tasks, seeded(seed)) if task is None else task)
    batch, _ = rollout(env, learner.act, learner.actor(state, num_tasks), episodes, seeded(seed + 1))
    return batch


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


def equal(x: Any, y: Any) -> bool:
    """The same tensors to the last bit, and the same everything else."""
    left, right = tree_leaves(x), tree_leaves(y)
    return len(left) == len(right) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(left, right, strict=True)
    )


# --- what the policy is fed ------------------------------------------------------------------------


@dataclass(frozen=True)
class SpyPolicy(RecurrentPolicy):
    """Writes down what it is given."""

    inputs_seen: list[Tensor] = field(default_factory=list)
    memories_seen: list[Any] = field(default_factory=list)

    def __call__(self, params: Params, inputs: Tensor, memory: Any) -> ActorCritic:
        self.inputs_seen.append(inputs.detach().clone())
        self.memories_seen.append(memory)
        return super().__call__(params, inputs, memory)


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


# --- what is remembered ----------------------------------------------------------------------------


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
    before, after = (learner.replay(state.meta, b) for b in (batch, batch._replace(reward=reward)))
    changed = (after.dist.log_probs != before.dist.log_probs).any(-1)
    expected = torch.zeros_like(changed)
    expected[1, 0, 5:] = True
    assert torch.equal(changed, expected)
    assert torch.equal(after.value != before.value, expected)


# --- replay ----------------------------------------------------------------------------------------

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
        dist, value, _ = replace(learner, bptt_steps=bptt_steps).replay(state.meta, batch)
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
        changed = (learner.replay(state.meta, other).dist[0] - batch.dist[0]).abs().max()
        assert changed > 1e-4 if memory != "none" else changed < 1e-5


def gradient_of(learner: RL2, meta: Params, batch: TrajectoryBatch) -> Tensor:
    """Of a sum over log-probabilities and values with weights that tell the steps apart."""
    leaves = {name: x.clone().requires_grad_() for name, x in meta.items()}
    dist, value, _ = learner.replay(leaves, batch)
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
        values[bptt_steps] = told.replay(state.meta, batch).value
        gradients[bptt_steps] = gradient_of(told, state.meta, batch)
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
    scale = state.return_scale + 0.3
    sizes = [x.numel() for x in state.meta.values()]
    point = torch.cat([x.flatten() for x in state.meta.values()])
    point = point + 0.05 * torch.randn(len(point), generator=seeded(3))

    def loss(vector: Tensor, learner: RL2 = learner) -> Tensor:
        pieces = zip(state.meta.items(), vector.split(sizes), strict=True)
        return learner._loss({name: x.view(like.shape) for (name, like), x in pieces}, batch, scale, 0.05)[0]

    def gradient(learner: RL2) -> Tensor:
        leaf = point.clone().requires_grad_()
        return torch.autograd.grad(loss(leaf, learner), leaf)[0]

    h = 1e-6
    directions = torch.randn(12, len(point), generator=seeded(4))
    slopes = torch.stack([(loss(point + h * d) - loss(point - h * d)) / (2 * h) for d in directions])
    assert (directions @ gradient(learner) - slopes).norm() < 1e-6 * slopes.norm()
    if memory != "none":  # negative control: cut after every step it is another vector
        assert (directions @ gradient(replace(learner, bptt_steps=1)) - slopes).norm() > 1e-2 * slopes.norm()


# --- credit ----------------------------------------------------------------------------------------

VALUED = RecurrentPolicy("none", memory_size=1)
"""Its value is what the observation says: see :func:`valued`."""


def valued(learner: RL2, *, mean: float = 0.0, std: float = 1.0, num_updates: int = 1) -> RL2State:
    """tanh of the observation is the value in deviations ``std`` from ``mean``; both actions are equally likely."""
    meta = {
        "memory.weight": torch.ones(1, 1),
        "memory.bias": torch.zeros(1),
        "policy.weight": torch.zeros(2, 1),
        "policy.bias": torch.zeros(2),
        "value.weight": torch.ones(1, 1),
        "value.bias": torch.zeros(1),
    }
    return RL2State(meta, {}, torch.tensor([mean, std]).repeat(8, 1), num_updates)


def trials(
    reward: list[list[list[float]]],
    *,
    value: list[list[list[float]]] | None = None,
    valid: list[list[list[int]]] | None = None,
    horizon: int = 2,
) -> TrajectoryBatch:
    """[task env time] of one-dimensional observations, whose tanh is ``value``, and two actions."""
    paid = torch.tensor(reward)
    shape = paid.shape
    obs = torch.zeros(shape) if value is None else torch.tensor(value).atanh()
    clock = (torch.arange(shape[-1]) % horizon).expand(shape)
    action = torch.tensor([1.0, 0.0]).expand(*shape, 2)
    dist = Categorical.from_logits(torch.zeros(*shape, 2))
    never = torch.zeros(shape, dtype=torch.bool)
    return TrajectoryBatch(
        obs=obs.unsqueeze(-1),
        action=action,
        reward=paid,
        terminated=never,
        truncated=clock == horizon - 1,
        clock=clock,
        success=never,
        valid=torch.ones(shape, dtype=torch.bool) if valid is None else torch.tensor(valid).bool(),
        log_prob=dist.log_prob(action),
        dist=dist,
        next_obs=obs.unsqueeze(-1),
        advantage=torch.zeros(shape),
        target=torch.zeros(shape),
    )


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advantages before they are normalized."""
    monkeypatch.setattr(rl2, "normalize", lambda x, valid: x.where(valid, 0.0))


@pytest.mark.usefixtures("raw", "float64")
def test_credit_crosses_the_ends_of_episodes_by_hand():
    """Two episodes of 2 steps; gamma = .5, lambda = .5, so an advantage hands a quarter on.

    t   r   V    delta                        A                               target
    0   0  .5    0 + .5 * .25 - .5  = -.375   -.375 + .25 * .125 = -.34375    .5 * 1 = .5
    1   0  .25   0 + .5 * .5  - .25 = 0        0    + .25 * .5   = .125       .5 * 2 = 1     the episode ends
    2   0  .5    0 + .5 * 0   - .5  = -.5     -.5   + .25 * 4    = .5         .5 * 4 = 2
    3   4   0    4            - 0   = 4        4                              4              the trial ends
    """
    learner = RL2(policy=VALUED, discount=0.5, gae_lambda=0.5, value_lambda=1.0)
    batch = trials([[[0.0, 0.0, 0.0, 4.0]]], value=[[[0.5, 0.25, 0.5, 0.0]]])
    credited = learner.credit(valued(learner), batch)
    assert credited.advantage.flatten().tolist() == pytest.approx([-0.34375, 0.125, 0.5, 4.0], abs=1e-12)
    assert credited.target.flatten().tolist() == [0.5, 1.0, 2.0, 4.0]
    # the first episode hears of the second one's reward: without it a quarter less a step, and no target
    without = learner.credit(valued(learner), batch._replace(reward=torch.zeros(1, 1, 4)))
    gained = credited.advantage - without.advantage
    assert gained.flatten().tolist() == pytest.approx([4 / 64, 4 / 16, 4 / 4, 4], abs=1e-12)
    assert without.target.eq(0).all()


@pytest.mark.usefixtures("raw", "float64")
def test_targets_are_returns_that_trust_the_value_as_far_as_they_are_told():
    """The trial above: V = .5, .25, .5, 0, gamma = .5, r_3 = 4. Lambda 0 is one step: r + gamma V' = .125, .25, 0, 4.
    Lambda .5 mixes: G_t = r_t + .5 (.5 V' + .5 G'): 4; .25 * 0 + .25 * 4 = 1; .125 + .25 = .375; .0625 + .09375.
    """
    batch = trials([[[0.0, 0.0, 0.0, 4.0]]], value=[[[0.5, 0.25, 0.5, 0.0]]])
    for value_lambda, expected in ((0.0, [0.125, 0.25, 0.0, 4.0]), (0.5, [0.15625, 0.375, 1.0, 4.0])):
        learner = RL2(policy=VALUED, discount=0.5, gae_lambda=0.9, value_lambda=value_lambda)
        target = learner.credit(valued(learner), batch).target
        assert target.flatten().tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("raw", "float64")
def test_values_are_in_units_of_the_return():
    """The head says .5, 0, -.5, 0; with mean 2 and deviation 4 that is V = 4, 2, 0, 2. gamma = .5, lambda = 0:
    0 + 1 - 4 = -3, 0 + 0 - 2 = -2, 0 + 1 - 0 = 1, 4 - 2 = 2.
    """
    learner = RL2(policy=VALUED, discount=0.5, gae_lambda=0.0)
    batch = trials([[[0.0, 0.0, 0.0, 4.0]]], value=[[[0.5, 0.0, -0.5, 0.0]]])
    credited = learner.credit(valued(learner, mean=2.0, std=4.0), batch)
    assert credited.advantage.flatten().tolist() == pytest.approx([-3.0, -2.0, 1.0, 2.0], abs=1e-12)


@pytest.mark.usefixtures("raw", "float64")
def test_credit_ends_with_the_trial_and_idle_steps_neither_get_nor_give_any():
    """The second world's trial is over after two steps: its advantages are those of a trial of two steps, whatever
    idle steps were paid or are worth, and idle steps get nothing.
    """
    learner = RL2(policy=VALUED, discount=0.5, gae_lambda=0.5)
    reward = [[[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 77.0, -1e9]]]
    value = [[[0.5, 0.25, 0.5, 0.0], [0.5, 0.25, 0.99, -0.99]]]
    batch = trials(reward, value=value, valid=[[[1, 1, 1, 1], [1, 1, 0, 0]]])
    credited = learner.credit(valued(learner, mean=1.0), batch)
    short = learner.credit(valued(learner, mean=1.0), trials([[[1.0, 2.0]]], value=[[[0.5, 0.25]]]))
    assert torch.equal(credited.advantage[0, 1, :2], short.advantage[0, 0])
    assert torch.equal(credited.target[0, 1, :2], short.target[0, 0])
    assert credited.advantage[0, 1, 2:].eq(0).all()
    # V = 1.25 at the last step of the short trial: 2 - 1.25, not 2 + .5 * (V of an idle step) - 1.25
    assert credited.advantage[0, 1, 1].item() == pytest.approx(0.75, abs=1e-12)
    for garbage in (math.nan, math.inf):
        idle = batch.reward.clone()
        idle[0, 1, 2:] = garbage
        again = learner.credit(valued(learner, mean=1.0), batch._replace(reward=idle))
        assert torch.equal(again.advantage, credited.advantage)
    # negative control: had the trial gone on, it would be another number
    longer = learner.credit(valued(learner, mean=1.0), batch._replace(valid=torch.ones_like(batch.valid)))
    assert (longer.advantage - credited.advantage)[0, 1, 1].abs() > 1


@pytest.mark.usefixtures("raw", "float64")
def test_a_failed_step_within_a_trial_carries_no_reward_and_the_trial_goes_on():
    """Step 1 failed: credit for the reward of step 3 still reaches step 0, through 3 steps: (.5)^3 * 8 = 1."""
    learner = RL2(policy=VALUED, discount=0.5, gae_lambda=1.0, value_lambda=1.0)
    batch = trials([[[0.0, 500.0, 0.0, 8.0]]], valid=[[[1, 0, 1, 1]]])
    credited = learner.credit(valued(learner), batch)
    assert credited.advantage.flatten().tolist() == [1.0, 0.0, 4.0, 8.0]
    assert credited.target[0, 0, [0, 2, 3]].tolist() == [1.0, 4.0, 8.0]


@pytest.mark.usefixtures("raw")
def test_other_worlds_and_tasks_have_no_part_in_a_worlds_credit():
    learner = RL2(policy=RecurrentPolicy(memory_size=8))
    tasks = TabularMDP(states=3, actions=2, horizon=3)
    state = trained(learner, tasks.spec)
    batch = play(learner, tasks, state)
    reward = batch.reward.clone()
    reward[1, 1] += torch.randn(reward.shape[-1], generator=seeded(5))
    before, after = (learner.credit(state, b) for b in (batch, batch._replace(reward=reward)))
    for x, y in ((before.advantage, after.advantage), (before.target, after.target)):
        same = (x == y).all(-1)
        assert same.tolist() == [[True, True], [True, False], [True, True]]


@pytest.mark.usefixtures("float64")
def test_advantages_are_normalized_over_the_meta_batch_not_task_by_task():
    """Values 0, gamma 0: advantages are rewards, 1, 3 | 5, 7 with mean 4 and variance 5. Each task for itself would
    give -1, 1 | -1, 1, and hide that the second task's steps earned more.
    """
    learner = RL2(policy=VALUED, discount=0.0)
    batch = trials([[[1.0, 3.0]], [[5.0, 7.0]]])
    advantage = learner.credit(valued(learner), batch).advantage.flatten()
    expected = [x / math.sqrt(5) for x in (-3, -1, 1, 3)]
    assert advantage.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("float64")
def test_advantages_do_not_change_with_the_scale_of_all_rewards_but_with_that_of_one_task():
    """With values that are 0: whole trials of 4 steps, gamma and lambda below 1, and an idle step."""
    learner = RL2(policy=VALUED, discount=0.9, gae_lambda=0.8)
    reward = torch.randn(3, 2, 4, generator=seeded()).tolist()
    valid = [[[1, 1, 1, 1], [1, 1, 1, 0]]] * 3
    batch = trials(reward, valid=valid)
    advantage = learner.credit(valued(learner), batch).advantage
    of_all = learner.credit(valued(learner), batch._replace(reward=7.5 * batch.reward)).advantage
    torch.testing.assert_close(of_all, advantage, rtol=1e-6, atol=1e-6)
    counted = advantage[batch.valid]
    assert counted.mean().item() == pytest.approx(0.0, abs=1e-12)
    assert counted.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    assert advantage[~batch.valid].eq(0).all()
    scale = torch.tensor([1.0, 5.0, 1.0]).view(3, 1, 1)
    of_one = learner.credit(valued(learner), batch._replace(reward=scale * batch.reward)).advantage
    assert (of_one - advantage).abs().max() > 0.3


def test_the_scale_of_rewards_acts_on_inputs_advantages_and_targets():
    """Rewards of a tenth with a scale of ten are the same experience."""
    tasks = TabularMDP(states=3, actions=2, horizon=3)
    plain = RL2(policy=RecurrentPolicy(memory_size=8))
    scaled = replace(plain, reward_scale=10.0)
    state = trained(plain, tasks.spec)
    batch = play(plain, tasks, state)
    tenth = batch._replace(reward=batch.reward / 10)
    for x, y in zip(plain.replay(state.meta, batch)[:2], scaled.replay(state.meta, tenth)[:2], strict=True):
        for a, b in zip(tree_leaves(x), tree_leaves(y), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    expected, found = plain.credit(state, batch), scaled.credit(state, tenth)
    torch.testing.assert_close(found.advantage, expected.advantage, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.target, expected.target, rtol=1e-4, atol=1e-4)
    # negative control
    assert (plain.replay(state.meta, tenth).value - plain.replay(state.meta, batch).value).abs().max() > 1e-2


@pytest.mark.parametrize("standardize", [True, False])
def test_standardized_rewards_are_fed_alike_in_any_unit(standardize: bool):
    """Rewards 3 r + 7 with mean and deviation in that unit; without standardizing, the policy sees the difference."""
    tasks = TabularMDP(states=3, actions=2, horizon=3)
    learner = RL2(policy=RecurrentPolicy(memory_size=8), standardize_reward=standardize)
    state = trained(learner, tasks.spec)
    batch = play(learner, tasks, state)
    meta = dict(state.meta)
    if standardize:
        mean, std = meta[REWARD]
        meta[REWARD] = torch.stack([3 * mean + 7, 3 * std])
    logits, others = (
        learner.replay(params, b).dist.log_probs
        for params, b in ((state.meta, batch), (meta, batch._replace(reward=3 * batch.reward + 7)))
    )
    assert (logits - others).abs().max() < 1e-5 if standardize else (logits - others).abs().max() > 0.1


def test_the_mean_and_deviation_of_rewards_follow_each_batch_and_no_gradient():
    """The first batch gives them whole, later ones move them by a tenth; steps after a trial's end do not count."""
    tasks = Echo(horizon=4, pay=1.0, discrete=True)
    learner = RL2(policy=RecurrentPolicy(memory_size=8), standardize_reward=True, reward_scale=0.5)
    state = learner.init(tasks.spec, seeded())
    assert state.meta[REWARD].tolist() == [0.0, 2.0]  # what reward_scale alone would do
    batch = play(learner, tasks, state)
    valid = torch.ones_like(batch.valid)
    valid[0, :, 8:] = False
    batch = batch._replace(valid=valid, reward=torch.randn(valid.shape, generator=seeded()).where(valid, 1e6))
    found = batch.reward[batch.valid]
    wanted = torch.stack([found.mean(), found.std(correction=0)])
    first, _ = learner.update(state, [learner.credit(state, batch)])
    torch.testing.assert_close(first.meta[REWARD], wanted)
    again = batch._replace(reward=batch.reward * 2 + 1)
    second, _ = learner.update(first, [learner.credit(first, again)])
    torch.testing.assert_close(second.meta[REWARD], 0.9 * wanted + 0.1 * (2 * wanted + torch.tensor([1.0, 0.0])))


# --- the linear baseline ---------------------------------------------------------------------------


@pytest.mark.usefixtures("raw", "float64")
def test_the_linear_baseline_is_one_least_squares_fit_of_all_tasks_on_the_clock_of_the_trial():
    """gamma = .9, lambda = .8, features [o, o^2, t, t^2, t^3, 1] with t = steps of the *trial* / 100, ridge 1e-5."""
    learner = RL2(policy=VALUED, baseline=LinearFeatureBaseline(), discount=0.9, gae_lambda=0.8)
    generator = seeded(4)
    shape = (3, 2, 6)
    batch = trials(torch.randn(shape, generator=generator).tolist(), valid=[[[1] * 6, [1] * 4 + [0] * 2]] * 3)
    batch = batch._replace(obs=torch.randn(*shape, 1, generator=generator))
    batch = batch._replace(reward=batch.reward + torch.tensor([0.0, 5.0, -5.0]).view(3, 1, 1))

    def by_hand(groups: list[list[int]], clock: Tensor) -> Tensor:
        """One fit for each group of tasks."""
        advantage = torch.zeros(shape)
        for tasks in groups:
            rows, returns, where = [], [], []
            for i in tasks:
                for j in range(2):
                    total = 0.0
                    for t in reversed(range(int(batch.valid[i, j].sum()))):
                        total = batch.reward[i, j, t].item() + 0.9 * total
                        o, hundredth = batch.obs[i, j, t, 0].item(), clock[t].item() / 100
                        rows.append([o, o**2, hundredth, hundredth**2, hundredth**3, 1.0])
                        returns.append(total)
                        where.append((i, j, t))
            x, y = torch.tensor(rows), torch.tensor(returns)
            x_ridge = torch.cat([x, math.sqrt(1e-5) * torch.eye(6)])
            value = x @ torch.linalg.lstsq(x_ridge, torch.cat([y, torch.zeros(6)])).solution
            values = dict(zip(where, value.tolist(), strict=True))
            for i, j, t in where:  # from the end of a trial to its start
                following = (i, j, t + 1)
                delta = batch.reward[i, j, t] + 0.9 * values.get(following, 0.0) - values[i, j, t]
                advantage[i, j, t] = delta + 0.72 * (advantage[following] if following in values else 0.0)
        return advantage

    credited = learner.credit(valued(learner), batch)
    together = by_hand([[0, 1, 2]], torch.arange(6))
    torch.testing.assert_close(credited.advantage, together, rtol=1e-4, atol=1e-4)
    # negative controls: a fit for each task, and the clock of the episode
    assert (by_hand([[0], [1], [2]], torch.arange(6)) - together).abs().max() > 0.5
    assert (by_hand([[0, 1, 2]], torch.arange(6) % 2) - together).abs().max() > 0.1


def test_with_a_linear_baseline_the_value_head_is_left_alone():
    """Nothing is learned through it: the loss has no part in it, and the memory is shaped by the policy alone."""
    learner = RL2(policy=VALUED, baseline=LinearFeatureBaseline(), entropy_bonus=0.0, epochs=3)
    state = valued(learner)
    batch = trials([[[1.0, 3.0, 0.0, 2.0]], [[5.0, 7.0, 1.0, 0.0]]], value=[[[0.5, 0.25, 0.1, 0.0]]] * 2)
    batch = learner.credit(state, batch)._replace(advantage=torch.zeros(2, 1, 4))
    updated, metrics = learner.update(state, [batch])
    assert metrics["train/meta_gradient_norm"] == 0.0
    assert torch.equal(updated.meta["memory.weight"], state.meta["memory.weight"])
    # negative control
    _, with_head = replace(learner, baseline=None).update(state, [batch])
    assert with_head["train/meta_gradient_norm"] > 0.1


# --- the scale of returns --------------------------------------------------------------------------


def test_the_scale_is_that_of_the_trials_that_have_the_step():
    """Step 0: 1, 3, 5, 7 with mean 4 and variance 5. Step 1: 10 and 30, the other two are idle: 20 and 10. Step 2: one
    trial, whose deviation of 0 becomes a twentieth of the largest.
    """
    returns = torch.tensor([[[1.0, 10.0, 5.0], [3.0, 30.0, 99.0]], [[5.0, 1e9, 99.0], [7.0, -1e9, math.nan]]])
    valid = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 0, 0], [1, 0, 0]]]).bool()
    found = scale_by_step(returns, valid)
    assert found.flatten().tolist() == pytest.approx([4.0, math.sqrt(5), 20.0, 10.0, 5.0, 0.5], abs=1e-5)


def test_the_scale_follows_by_a_tenth_and_begins_with_what_is_found_at_steps_not_met_before():
    running, found = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0, 4.0]])
    moved, kept = [1.1, 2.2], [3.0, 4.0]
    assert follow(running, found, rate=0.1).flatten().tolist() == pytest.approx([*moved, *kept])
    longer = torch.tensor([[2.0, 4.0], [13.0, 14.0], [7.0, 8.0]])
    expected = [*moved, 4.0, 5.0, 7.0, 8.0]
    assert follow(running, longer, rate=0.1).flatten().tolist() == pytest.approx(expected)
    assert torch.equal(follow(torch.zeros(0, 2), longer, rate=0.1), longer)
    assert torch.equal(follow(running, found, rate=0.0), running)


@pytest.mark.usefixtures("raw", "float64")
def test_before_training_a_value_is_the_mean_return_from_that_step_on():
    """Two trials that earn 0, 4 and 2, 0; gamma = .5: returns 2, 4 and 2, 0, so V = 2, 2. Lambda 0:
    0 + .5 * 2 - 2 = -1, 4 - 2 = 2 and 2 + .5 * 2 - 2 = 1, 0 - 2 = -2.
    """
    learner = RL2(policy=VALUED, discount=0.5, gae_lambda=0.0, value_lambda=1.0)
    state = valued(learner)._replace(return_scale=torch.zeros(0, 2))
    credited = learner.credit(state, trials([[[0.0, 4.0]], [[2.0, 0.0]]]))
    assert credited.advantage.flatten().tolist() == [-1.0, 2.0, 1.0, -2.0]
    assert credited.target.flatten().tolist() == [2.0, 4.0, 2.0, 0.0]


def test_an_update_moves_the_scale_towards_the_targets():
    """Per step: 1, 3 with mean 2, deviation 1 and 5, 9 with 7 and 2. From nothing at once, from (0, 1) by a tenth."""
    learner = RL2(policy=VALUED)
    batch = judged([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0]] * 2, [[1.0, 5.0], [3.0, 9.0]])
    state = valued(learner)
    updated, _ = learner.update(state._replace(return_scale=torch.zeros(0, 2)), [batch])
    assert updated.return_scale.flatten().tolist() == pytest.approx([2.0, 1.0, 7.0, 2.0], abs=1e-6)
    updated, _ = learner.update(state, [batch])
    assert updated.return_scale[:2].flatten().tolist() == pytest.approx([0.2, 1.0, 0.7, 1.1], abs=1e-6)
    assert torch.equal(updated.return_scale[2:], state.return_scale[2:])


@pytest.mark.parametrize("met", [False, True])
def test_steps_that_no_trial_reached_leave_the_scale_as_it_was(met: bool):
    """A rollout looks every 16 steps whether all worlds are through, so its last steps may be idle in all of them.
    They are no returns of 0: where a step has a scale it stays, and where it has none the first trial to get there
    begins it, here with a target of 100 and 102.
    """
    learner = RL2(policy=VALUED, epochs=1)
    state = valued(learner, mean=50.0)
    if not met:
        state = state._replace(return_scale=state.return_scale[:1])
    batch = judged([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0]] * 2, [[50.0, 100.0], [50.0, 102.0]])
    idle = batch._replace(valid=torch.tensor([[[True, False], [True, False]]]))
    after, _ = learner.update(state, [idle])
    assert all(x.isfinite().all() for x in after.meta.values())
    later, _ = learner.update(after, [batch])
    if met:
        assert torch.equal(after.return_scale[1], state.return_scale[1])
        assert later.return_scale[1].tolist() == pytest.approx([50 + 5.1, 1.0])
    else:
        assert later.return_scale[1].tolist() == pytest.approx([101.0, 1.0])


def test_returns_that_are_all_equal_have_a_scale():
    learner = RL2(policy=VALUED)
    state = valued(learner)._replace(return_scale=torch.zeros(0, 2))
    updated, metrics = learner.update(state, [judged([[1.0, 1.0]] * 2, [[0.5, -0.5]] * 2, [[3.0, 3.0]] * 2)])
    assert updated.return_scale[:, 0].tolist() == pytest.approx([3.0, 3.0])
    assert (updated.return_scale[:, 1] > 0).all()
    assert all(x.isfinite().all() for x in updated.meta.values())
    assert math.isfinite(metrics["train/value_loss"])


# --- update: the loss by hand ----------------------------------------------------------------------


def judged(ratio: list[list[float]], advantage: list[list[float]], target: list[list[float]]) -> TrajectoryBatch:
    """Trials [env time] whose steps have these likelihood ratios under :func:`valued`, where each action has log .5."""
    batch = trials([[[0.0] * len(steps) for steps in ratio]])
    return batch._replace(
        log_prob=math.log(0.5) - torch.tensor([ratio]).log(),
        advantage=torch.tensor([advantage]),
        target=torch.tensor([target]),
    )


def test_the_loss_by_hand():
    """Ratios 1.5, 1.5 and .5, .5 with clip .2 and advantages 1, -1 and 1, -1:
    min(1.5, 1.2) = 1.2, min(-1.5, -1.2) = -1.5, min(.5, .8) = .5, min(-.5, -.8) = -.8: mean -.15, loss .15.
    Targets 1, 30 and 3, 10, the first ones: means 2 and 20, deviations 1 and 10, so they are -1, 1 and 1, -1. The head
    says .5: squared errors 2.25, .25, .25, 2.25, half their mean .625. Entropy log 2.
    Loss .15 + .4 * .625 - .1 log 2. KL: mean of r - 1 - log r = (.5 - log 1.5 - .5 - log .5) / 2.
    """
    learner = RL2(policy=VALUED, clip=0.2, value_weight=0.4, entropy_bonus=0.1, epochs=1)
    state = valued(learner)._replace(return_scale=torch.zeros(0, 2))
    batch = judged([[1.5, 1.5], [0.5, 0.5]], [[1.0, -1.0]] * 2, [[1.0, 30.0], [3.0, 10.0]])
    batch = batch._replace(obs=torch.full((1, 2, 2, 1), 0.5).atanh())
    _, metrics = learner.update(state, [batch])
    assert metrics["train/loss"] == pytest.approx(0.15 + 0.4 * 0.625 - 0.1 * math.log(2), abs=1e-6)
    assert metrics["train/value_loss"] == pytest.approx(0.625, abs=1e-6)
    assert metrics["train/entropy"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["train/kl"] == pytest.approx((-math.log(1.5) - math.log(0.5)) / 2, abs=1e-6)
    assert metrics["train/clip_fraction"] == 1.0
    # each weight has its term
    _, metrics = replace(learner, value_weight=0.0, entropy_bonus=0.0).update(state, [batch])
    assert metrics["train/loss"] == pytest.approx(0.15, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.5, 1.0, 0),  # likelier already than the clip allows: nothing to gain
        (1.1, 1.0, +1),
        (0.5, 1.0, +1),  # it was good and has become rare
        (0.5, -1.0, 0),  # rarer already than the clip allows
        (0.9, -1.0, -1),
        (1.5, -1.0, -1),  # it was bad and has become likelier
    ],
)
def test_ratios_have_no_incentive_to_leave_the_clip_but_one_to_return(ratio: float, advantage: float, moves: int):
    """The sign of the change of log pi(a) in one step."""
    learner = RL2(policy=VALUED, clip=0.2, value_weight=0.0, entropy_bonus=0.0, epochs=1)
    state = valued(learner)
    updated, metrics = learner.update(state, [judged([[ratio]], [[advantage]], [[0.0]])])
    logits = updated.meta["policy.bias"] - state.meta["policy.bias"]
    assert (logits[0] - logits[1]).sign() == moves
    assert (metrics["train/meta_gradient_norm"] > 0) == (moves != 0)


def test_the_entropy_bonus_raises_the_entropy_and_the_value_moves_to_its_target():
    learner = RL2(policy=VALUED, value_weight=0.0, entropy_bonus=1.0, epochs=5, learning_rate=0.1)
    state = valued(learner)
    state.meta["policy.bias"] = torch.tensor([1.0, -1.0])
    batch = judged([[1.0, 1.0]], [[0.0, 0.0]], [[3.0, 5.0]])
    updated, _ = learner.update(state, [batch])
    before, after = (learner.replay(s.meta, batch).dist.entropy().mean() for s in (state, updated))
    assert after > before + 0.1
    learner = replace(learner, value_weight=1.0, entropy_bonus=0.0, epochs=120)
    updated, _ = learner.update(state, [batch])
    # the scale went from (0, 1) to (.3, .9) and (.5, .9): 3 and 5 deviations, and both steps look alike
    found = learner.replay(updated.meta, batch).value
    assert found.flatten().tolist() == pytest.approx([4.0, 4.0], abs=0.05)
    assert torch.equal(updated.meta["policy.bias"], state.meta["policy.bias"])


def test_idle_steps_change_nothing():
    """Whatever is in them: loss, KL, scale of returns and the step are those of the valid ones."""
    learner = RL2(policy=VALUED, epochs=3)
    batch = judged([[1.1, 0.9, 1.05, 1.1]], [[1.0, -1.0, 0.5, -99.0]], [[1.0, 3.0, 2.0, 500.0]])
    batch = batch._replace(valid=torch.tensor([[[True, True, True, False]]]))
    short = judged([[1.1, 0.9, 1.05]], [[1.0, -1.0, 0.5]], [[1.0, 3.0, 2.0]])
    expected, expected_metrics = learner.update(valued(learner), [short])
    updated, metrics = learner.update(valued(learner), [batch])
    for name in expected.meta:
        torch.testing.assert_close(updated.meta[name], expected.meta[name], rtol=1e-6, atol=1e-7)
    assert torch.equal(updated.return_scale[:3], expected.return_scale[:3])
    assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-7)
    # negative control
    whole, _ = learner.update(valued(learner), [batch._replace(valid=torch.ones_like(batch.valid))])
    assert (whole.meta["policy.bias"] - expected.meta["policy.bias"]).abs().max() > 1e-4


# --- update: epochs, shares, annealing -------------------------------------------------------------

MDP = TabularMDP(states=3, actions=2, horizon=3)


def experience(learner: RL2, state: RL2State, *, num_tasks: int = 4, seed: int = 0) -> TrajectoryBatch:
    return learner.credit(state, play(learner, MDP, state, num_tasks=num_tasks, seed=seed))


def test_at_the_first_step_the_ratio_is_1():
    """No divergence from the policy that acted, nothing clipped; after steps of some size there is."""
    learner = RL2(policy=RecurrentPolicy(memory_size=8), epochs=1, learning_rate=0.05)
    state = trained(learner, MDP.spec)
    batch = experience(learner, state)
    _, metrics = learner.update(state, [batch])
    assert abs(metrics["train/kl"]) < 1e-9
    assert metrics["train/clip_fraction"] == 0.0
    _, metrics = replace(learner, epochs=4).update(state, [batch])
    assert metrics["train/kl"] > 1e-3
    assert metrics["train/clip_fraction"] > 0.0


@pytest.mark.parametrize(
    ("num_tasks", "minibatches", "sizes"),
    [
        (6, 1, [6]),
        (6, 3, [2, 2, 2]),
        (7, 3, [2, 2, 3]),
        (10, 8, [1, 1, 1, 1, 1, 1, 2, 2]),  # 8 gradient steps, as asked for
        (3, 5, [1, 1, 1]),  # as many as there are tasks
    ],
)
def test_the_shares_of_a_pass_are_all_tasks_once_and_as_many_as_asked_for(
    num_tasks: int, minibatches: int, sizes: list[int]
):
    learner = RL2(policy=SpyPolicy(memory_size=3), epochs=2, minibatches=minibatches)
    tasks = Echo(horizon=3, pay=1e-3)
    state = trained(learner, tasks.spec)
    batch = learner.credit(state, play(learner, tasks, state, num_tasks=num_tasks))
    marks = torch.arange(num_tasks).float().view(-1, 1, 1).expand(batch.reward.shape)
    batch = batch._replace(obs=torch.stack([marks, marks], dim=-1))
    learner.policy.inputs_seen.clear()
    learner.update(state, [batch])
    seen = [inputs[::2, 0, 0].long().tolist() for inputs in learner.policy.inputs_seen]  # of two worlds a task
    assert len(seen) == 2 * len(sizes)
    for epoch in (seen[: len(sizes)], seen[len(sizes) :]):
        assert sorted(task for share in epoch for task in share) == list(range(num_tasks))
        assert sorted(len(share) for share in epoch) == sizes


def test_learning_rate_and_entropy_bonus_fall_linearly_to_zero():
    """Over 4 updates: 1, 3/4, 1/2, 1/4 of them, then nothing; without annealing they stay."""
    learner = RL2(policy=VALUED, learning_rate=0.02, entropy_bonus=0.4, value_weight=0.0, epochs=1, anneal_updates=4)
    batch = judged([[1.0, 1.0]], [[0.0, 0.0]], [[1.0, 3.0]])
    for num_updates in (0, 1, 2, 3, 4, 5, 100):
        remaining = max(0.0, 1 - num_updates / 4)
        state = valued(learner, num_updates=num_updates)
        updated, metrics = learner.update(state, [batch])
        assert metrics["train/learning_rate"] == pytest.approx(0.02 * remaining, abs=1e-12)
        assert metrics["train/loss"] == pytest.approx(-0.4 * remaining * math.log(2), abs=1e-6)
        assert updated.num_updates == num_updates + 1
        _, constant = replace(learner, anneal_updates=0).update(state, [batch])
        assert constant["train/learning_rate"] == 0.02
        assert constant["train/loss"] == pytest.approx(-0.4 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("num_updates", [0, 2, 4])
def test_a_step_is_as_long_as_the_learning_rate_of_the_day(num_updates: int):
    """Adam's first step moves every weight that has a gradient by its learning rate: .02, .01, and 0 after 4 of 4.
    The rate is that of the update, also where the optimizer comes from an earlier one.
    """
    learner = RL2(policy=VALUED, learning_rate=0.02, entropy_bonus=0.0, value_weight=0.0, epochs=1, anneal_updates=4)
    batch = judged([[1.0]], [[1.0]], [[0.0]])
    state = valued(learner, num_updates=num_updates)
    updated, _ = learner.update(state, [batch])
    step = updated.meta["policy.bias"] - state.meta["policy.bias"]
    expected = 0.02 * (1 - num_updates / 4)
    assert step.abs().tolist() == pytest.approx([expected, expected], rel=1e-3)
    later, _ = learner.update(updated._replace(num_updates=4), [batch])
    assert torch.equal(later.meta["policy.bias"], updated.meta["policy.bias"])


def test_the_optimizer_remembers_and_updates_are_counted():
    learner = RL2(policy=RecurrentPolicy(memory_size=8), epochs=3, minibatches=2)
    state = learner.init(MDP.spec, seeded())
    for update in (1, 2):
        state, _ = learner.update(state, [experience(learner, state, seed=update)])
        assert state.num_updates == update
        steps = {int(moments["step"]) for moments in state.optimizer["state"].values()}
        assert steps == {6 * update}
    batch = experience(learner, state, seed=9)
    kept, _ = learner.update(state, [batch])
    forgotten, _ = learner.update(state._replace(optimizer={}), [batch])
    assert (kept.meta["policy.weight"] - forgotten.meta["policy.weight"]).abs().max() > 1e-5


# --- update: what must not change ------------------------------------------------------------------


def test_the_state_passed_in_is_never_changed_and_bits_repeat():
    """Neither weights nor Adam's moments nor the scale of returns: a second update from it is the first one again."""
    learner = RL2(policy=RecurrentPolicy(memory_size=8), epochs=2, minibatches=2)
    state = trained(learner, MDP.spec)
    state, _ = learner.update(state, [experience(learner, state)])  # now with moments
    batch = experience(learner, state, seed=1)
    kept_state, kept_batch = copy.deepcopy(state), copy.deepcopy(batch)
    first, first_metrics = learner.update(state, [batch])
    assert equal(state, kept_state)
    assert equal(batch, kept_batch)
    second, second_metrics = learner.update(state, [batch])
    assert equal(first, second)
    assert first_metrics == second_metrics
    assert not equal(first.meta, state.meta)
    assert not equal(first.optimizer, state.optimizer)
    # nor by what comes after
    kept_first = copy.deepcopy(first)
    learner.update(first, [experience(learner, first, seed=2)])
    assert equal(first, kept_first)
    assert not any(x.requires_grad for x in tree_leaves(first) if isinstance(x, Tensor))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("task", [0, 3], ids=["first share", "last share"])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(bad: float, task: int):
    """Also where it comes in the second share, after a step has been taken."""
    learner = RL2(policy=RecurrentPolicy(memory_size=8), epochs=2, minibatches=2)
    state = trained(learner, MDP.spec)
    state, _ = learner.update(state, [experience(learner, state)])
    batch = experience(learner, state, seed=1)
    advantage = batch.advantage.clone()
    advantage[task, 0, 2] = bad
    kept = copy.deepcopy(state)
    after, metrics = learner.update(state, [batch._replace(advantage=advantage)])
    assert metrics["train/skipped_updates"] == 1.0
    assert equal(after, kept)
    assert equal(state, kept)
    # negative control: without it the update goes through
    after, metrics = learner.update(state, [batch])
    assert "train/skipped_updates" not in metrics
    assert not equal(after, kept)


def test_credit_and_acting_change_neither_state_nor_experience():
    learner = RL2(policy=RecurrentPolicy(memory_size=8))
    state = trained(learner, MDP.spec)
    kept = copy.deepcopy(state)
    batch = play(learner, MDP, state)
    kept_batch = copy.deepcopy(batch)
    credited = learner.credit(state, batch)
    assert equal(state, kept)
    assert equal(batch, kept_batch)
    assert not any(x.requires_grad for x in tree_leaves(credited))
    for name in set(TrajectoryBatch._fields) - {"advantage", "target"}:
        assert equal(getattr(credited, name), getattr(batch, name)), name


# --- without memory and with one episode it is PPO -------------------------------------------------


class PlainPPO(torch.nn.Module):
    """Schulman et al. 2017 in textbook form: nothing of the library, a module a head; its value is in deviations from
    the mean return of each step, which follow those found by a tenth.
    """

    def __init__(self, meta: Params, memory_size: int) -> None:
        super().__init__()
        obs_dim, units = meta["encoder.weight_0"].shape[1], meta["encoder.weight_0"].shape[0]
        self.body = torch.nn.Sequential(
            torch.nn.Linear(obs_dim, units), torch.nn.Tanh(), torch.nn.Linear(units, memory_size), torch.nn.Tanh()
        )
        self.head = torch.nn.Linear(memory_size, len(meta["policy.bias"]))
        self.value = torch.nn.Linear(memory_size, 1)
        self.log_std = torch.nn.Parameter(meta["log_std"].clone()) if "log_std" in meta else None
        self.double()
        with torch.no_grad():
            for mine, theirs in self.pairs():
                mine.copy_(meta[theirs])

    def pairs(self) -> list[tuple[Tensor, str]]:
        names = [
            (self.body[0].weight, "encoder.weight_0"),
            (self.body[0].bias, "encoder.bias_0"),
            (self.body[2].weight, "memory.weight"),
            (self.body[2].bias, "memory.bias"),
            (self.head.weight, "policy.weight"),
            (self.head.bias, "policy.bias"),
            (self.value.weight, "value.weight"),
            (self.value.bias, "value.bias"),
        ]
        return names if self.log_std is None else [*names, (self.log_std, "log_std")]

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability, entropy and value."""
        hidden = self.body(obs)
        if self.log_std is None:
            choice = torch.distributions.OneHotCategorical(logits=self.head(hidden))
            return choice.log_prob(action), choice.entropy(), self.value(hidden).squeeze(-1)
        normal = torch.distributions.Normal(self.head(hidden), self.log_std.exp())
        return normal.log_prob(action).sum(-1), normal.entropy().sum(-1), self.value(hidden).squeeze(-1)

    def learn(
        self, obs: Tensor, action: Tensor, reward: Tensor, scale: tuple[Tensor, Tensor], options: dict[str, Any]
    ) -> None:
        """[task env time]; one episode each, after which nothing comes. ``scale``: mean and deviation [time]."""
        gamma, lam = options["discount"], options["gae_lambda"]
        with torch.no_grad():
            old_log_prob, _, value = self(obs, action)
            mean, std = scale
            value = mean + std * value
            advantage = torch.zeros_like(reward)
            gain, following = 0.0, 0.0
            for t in reversed(range(reward.shape[-1])):
                gain = reward[..., t] + gamma * following - value[..., t] + gamma * lam * gain
                following = value[..., t]
                advantage[..., t] = gain
            returns = advantage + value
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
            mean = mean + 0.1 * (returns.mean((0, 1)) - mean)
            std = std + 0.1 * (returns.std((0, 1), correction=0) - std)
        adam = torch.optim.Adam(self.parameters(), lr=options["learning_rate"], eps=1e-5)
        for _ in range(options["epochs"]):
            for share in (torch.arange(len(obs))[i :: options["minibatches"]] for i in range(options["minibatches"])):
                log_prob, entropy, value = self(obs[share], action[share])
                ratio = torch.exp(log_prob - old_log_prob[share])
                low, high = 1 - options["clip"], 1 + options["clip"]
                gain = torch.min(ratio * advantage[share], torch.clip(ratio, low, high) * advantage[share]).mean()
                error = ((value - (returns[share] - mean) / std) ** 2).mean() / 2
                loss = -gain + options["value_weight"] * error - options["entropy_bonus"] * entropy.mean()
                adam.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.parameters(), options["max_grad_norm"])
                adam.step()


def in_float64(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


OPTIONS = {
    "discount": 0.97,
    "gae_lambda": 0.8,
    "value_lambda": 0.8,
    "learning_rate": 0.01,
    "epochs": 4,
    "minibatches": 2,
    "clip": 0.1,
    "entropy_bonus": 0.03,
    "value_weight": 0.4,
    "max_grad_norm": 0.2,
}


@pytest.mark.parametrize(
    "tasks",
    [replace(Navigation.presets["corner"], horizon=15), TabularMDP(states=4, actions=3)],
    ids=["continuous", "discrete"],
)
def test_with_one_episode_and_no_memory_it_is_ppo(tasks: TaskDistribution):
    """8 optimizer steps; every weight within 1e-9 of the other implementation, having moved by 5e-3 and more."""
    learner = RL2(policy=RecurrentPolicy("none", memory_size=8, encoder_sizes=(5,)), **OPTIONS)
    state = trained(learner, tasks.spec)
    batch = play(learner, tasks, state, num_tasks=6, episodes=1)
    state, batch = (tree_map(in_float64, x) for x in (state, batch))
    batch = batch._replace(log_prob=learner.replay(state.meta, batch).dist.log_prob(batch.action))
    assert batch.valid.all()
    updated, metrics = learner.update(state, [learner.credit(state, batch)])
    assert metrics["train/clip_fraction"] > 0.01
    assert metrics["train/meta_gradient_norm"] > OPTIONS["max_grad_norm"]
    ppo = PlainPPO(state.meta, 8)
    scale = state.return_scale[: batch.reward.shape[-1]].unbind(-1)
    ppo.learn(batch.obs, batch.action, batch.reward, scale, OPTIONS)
    for weight, name in ppo.pairs():
        torch.testing.assert_close(updated.meta[name], weight.detach(), rtol=0, atol=1e-9, msg=name)
        assert (weight.detach() - state.meta[name]).abs().max() > 5e-3, name
    # negative control: each option has a part in it
    for name, other in (("clip", 0.3), ("gae_lambda", 0.9), ("max_grad_norm", 5.0), ("minibatches", 3)):
        changed = PlainPPO(state.meta, 8)
        changed.learn(batch.obs, batch.action, batch.reward, scale, OPTIONS | {name: other})
        assert any((w.detach() - updated.meta[key]).abs().max() > 1e-4 for w, key in changed.pairs()), name


def test_the_learner_to_compare_with_is_the_same_one_without_memory():
    learner = RL2(policy=RecurrentPolicy("lstm", memory_size=7, encoder_sizes=(3,)), clip=0.3, epochs=2)
    assert learner.without_adaptation() == replace(learner, policy=replace(learner.policy, memory="none"))
    assert learner.remembers
    assert learner.adapt_steps == 0


# --- fields ----------------------------------------------------------------------------------------


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


# --- first weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("tasks", [Bandit(arms=4), Navigation()], ids=["discrete", "continuous"])
def test_an_untrained_policy_is_nearly_uniform_and_predicts_no_value(tasks: TaskDistribution, memory: str):
    learner = RL2(policy=RecurrentPolicy(memory, memory_size=16, init_std=0.7))
    state = learner.init(tasks.spec, seeded())
    batch = play(learner, tasks, state, episodes=2)
    dist, value, _ = learner.replay(state.meta, batch)
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
