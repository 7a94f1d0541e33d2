"""RL²: one update against arithmetic and another PPO."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from rl2_checks import VALUED, SpyPolicy, equal, judged, play, seeded, trained, valued
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from toy_tasks import Echo
from update_checks import meta_update

from metarl.algorithms.rl2 import RL2, RL2State
from metarl.envs.registry import TaskDistribution
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.types import Params, TrajectoryBatch, remembers

pytestmark = pytest.mark.usefixtures("one_thread")


# --- update: the loss by hand


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
    _, metrics = meta_update(learner, state, [batch])
    assert metrics["train/loss"] == pytest.approx(0.15 + 0.4 * 0.625 - 0.1 * math.log(2), abs=1e-6)
    assert metrics["train/value_loss"] == pytest.approx(0.625, abs=1e-6)
    assert metrics["train/entropy"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["train/kl"] == pytest.approx((-math.log(1.5) - math.log(0.5)) / 2, abs=1e-6)
    assert metrics["train/clip_fraction"] == 1.0
    # each weight has its term
    _, metrics = meta_update(replace(learner, value_weight=0.0, entropy_bonus=0.0), state, [batch])
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
    updated, metrics = meta_update(learner, state, [judged([[ratio]], [[advantage]], [[0.0]])])
    logits = updated.meta["policy.bias"] - state.meta["policy.bias"]
    assert (logits[0] - logits[1]).sign() == moves
    assert (metrics["train/meta_gradient_norm"] > 0) == (moves != 0)


def test_the_entropy_bonus_raises_the_entropy_and_the_value_moves_to_its_target():
    learner = RL2(policy=VALUED, value_weight=0.0, entropy_bonus=1.0, epochs=5, learning_rate=0.1)
    state = valued(learner)
    state.meta["policy.bias"] = torch.tensor([1.0, -1.0])
    batch = judged([[1.0, 1.0]], [[0.0, 0.0]], [[3.0, 5.0]])
    updated, _ = meta_update(learner, state, [batch])
    before, after = (learner.replay(s, batch).dist.entropy().mean() for s in (state, updated))
    assert after > before + 0.1
    learner = replace(learner, value_weight=1.0, entropy_bonus=0.0, epochs=120)
    updated, _ = meta_update(learner, state, [batch])
    # the scale went from (0, 1) to (.3, .9) and (.5, .9): 3 and 5 deviations, and both steps look alike
    found = learner.replay(updated, batch).value
    assert found.flatten().tolist() == pytest.approx([4.0, 4.0], abs=0.05)
    assert torch.equal(updated.meta["policy.bias"], state.meta["policy.bias"])


def test_idle_steps_change_nothing():
    """Whatever is in them: loss, KL, scale of returns and the step are those of the valid ones."""
    learner = RL2(policy=VALUED, epochs=3)
    batch = judged([[1.1, 0.9, 1.05, 1.1]], [[1.0, -1.0, 0.5, -99.0]], [[1.0, 3.0, 2.0, 500.0]])
    batch = batch._replace(valid=torch.tensor([[[True, True, True, False]]]))
    short = judged([[1.1, 0.9, 1.05]], [[1.0, -1.0, 0.5]], [[1.0, 3.0, 2.0]])
    expected, expected_metrics = meta_update(learner, valued(learner), [short])
    updated, metrics = meta_update(learner, valued(learner), [batch])
    for name in expected.meta:
        torch.testing.assert_close(updated.meta[name], expected.meta[name], rtol=1e-6, atol=1e-7)
    assert torch.equal(updated.return_scale[:3], expected.return_scale[:3])
    assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-7)
    # negative control
    whole, _ = meta_update(learner, valued(learner), [batch._replace(valid=torch.ones_like(batch.valid))])
    assert (whole.meta["policy.bias"] - expected.meta["policy.bias"]).abs().max() > 1e-4


# --- update: epochs, shares, annealing


MDP = TabularMDP(states=3, actions=2, horizon=3)


def experience(learner: RL2, state: RL2State, *, num_tasks: int = 4, seed: int = 0) -> TrajectoryBatch:
    return learner.credit(state, play(learner, MDP, state, num_tasks=num_tasks, seed=seed))


def test_at_the_first_step_the_ratio_is_1():
    """No divergence from the policy that acted, nothing clipped; after steps of some size there is."""
    learner = RL2(policy=RecurrentPolicy(memory_size=8), epochs=1, learning_rate=0.05)
    state = trained(learner, MDP.spec)
    batch = experience(learner, state)
    _, metrics = meta_update(learner, state, [batch])
    assert abs(metrics["train/kl"]) < 1e-9
    assert metrics["train/clip_fraction"] == 0.0
    _, metrics = meta_update(replace(learner, epochs=4), state, [batch])
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
    meta_update(learner, state, [batch])
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
        updated, metrics = meta_update(learner, state, [batch])
        assert metrics["train/learning_rate"] == pytest.approx(0.02 * remaining, abs=1e-12)
        assert metrics["train/loss"] == pytest.approx(-0.4 * remaining * math.log(2), abs=1e-6)
        assert updated.num_updates == num_updates + 1
        _, constant = meta_update(replace(learner, anneal_updates=0), state, [batch])
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
    updated, _ = meta_update(learner, state, [batch])
    step = updated.meta["policy.bias"] - state.meta["policy.bias"]
    expected = 0.02 * (1 - num_updates / 4)
    assert step.abs().tolist() == pytest.approx([expected, expected], rel=1e-3)
    later, _ = meta_update(learner, updated._replace(num_updates=4), [batch])
    assert torch.equal(later.meta["policy.bias"], updated.meta["policy.bias"])


def test_the_optimizer_remembers_and_updates_are_counted():
    learner = RL2(policy=RecurrentPolicy(memory_size=8), epochs=3, minibatches=2)
    state = learner.init(MDP.spec, seeded())
    for update in (1, 2):
        state, _ = meta_update(learner, state, [experience(learner, state, seed=update)])
        assert state.num_updates == update
        steps = {int(moments["step"]) for moments in state.optimizer["state"].values()}
        assert steps == {6 * update}
    batch = experience(learner, state, seed=9)
    kept, _ = meta_update(learner, state, [batch])
    forgotten, _ = meta_update(learner, state._replace(optimizer={}), [batch])
    assert (kept.meta["policy.weight"] - forgotten.meta["policy.weight"]).abs().max() > 1e-5


# --- update: what must not change


def test_the_state_passed_in_is_never_changed_and_bits_repeat():
    """Neither weights nor Adam's moments nor the scale of returns: a second update from it is the first one again."""
    learner = RL2(policy=RecurrentPolicy(memory_size=8), epochs=2, minibatches=2)
    state = trained(learner, MDP.spec)
    state, _ = meta_update(learner, state, [experience(learner, state)])  # now with moments
    batch = experience(learner, state, seed=1)
    kept_state, kept_batch = copy.deepcopy(state), copy.deepcopy(batch)
    first, first_metrics = meta_update(learner, state, [batch])
    assert equal(state, kept_state)
    assert equal(batch, kept_batch)
    second, second_metrics = meta_update(learner, state, [batch])
    assert equal(first, second)
    assert first_metrics == second_metrics
    assert not equal(first.meta, state.meta)
    assert not equal(first.optimizer, state.optimizer)
    # nor by what comes after
    kept_first = copy.deepcopy(first)
    meta_update(learner, first, [experience(learner, first, seed=2)])
    assert equal(first, kept_first)
    assert not any(x.requires_grad for x in tree_leaves(first) if isinstance(x, Tensor))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("task", [0, 3], ids=["first share", "last share"])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(bad: float, task: int):
    """Also where it comes in the second share, after a step has been taken."""
    learner = RL2(policy=RecurrentPolicy(memory_size=8), epochs=2, minibatches=2)
    state = trained(learner, MDP.spec)
    state, _ = meta_update(learner, state, [experience(learner, state)])
    batch = experience(learner, state, seed=1)
    advantage = batch.advantage.clone()
    advantage[task, 0, 2] = bad
    kept = copy.deepcopy(state)
    after, metrics = meta_update(learner, state, [batch._replace(advantage=advantage)])
    assert metrics["train/skipped_updates"] == 1.0
    assert equal(after, kept)
    assert equal(state, kept)
    # negative control: without it the update goes through
    after, metrics = meta_update(learner, state, [batch])
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


# --- without memory and with one episode it is PPO


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
    batch = batch._replace(log_prob=learner.replay(state, batch).dist.log_prob(batch.action))
    assert batch.valid.all()
    updated, metrics = meta_update(learner, state, [learner.credit(state, batch)])
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
    assert remembers(learner)
    assert learner.adapt_steps == 0
