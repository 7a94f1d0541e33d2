"""RL²: where credit goes, in which units, against arithmetic."""

import math
from dataclasses import replace

import pytest
import torch
from rl2_checks import VALUED, judged, play, seeded, trained, trials, valued
from torch import Tensor
from torch.utils._pytree import tree_leaves
from toy_tasks import Echo
from update_checks import meta_update

import metarl.algorithms.rl2 as rl2
from metarl.algorithms.rl2 import RL2
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.losses.return_scale import follow, scale_by_step
from metarl.networks.recurrent import RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline

pytestmark = pytest.mark.usefixtures("one_thread")


# --- credit


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advantages before they are normalized."""
    monkeypatch.setattr(rl2, "normalized", lambda x, valid: x.where(valid, 0.0))


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
    for x, y in zip(plain.replay(state, batch)[:2], scaled.replay(state, tenth)[:2], strict=True):
        for a, b in zip(tree_leaves(x), tree_leaves(y), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    expected, found = plain.credit(state, batch), scaled.credit(state, tenth)
    torch.testing.assert_close(found.advantage, expected.advantage, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.target, expected.target, rtol=1e-4, atol=1e-4)
    # negative control
    assert (plain.replay(state, tenth).value - plain.replay(state, batch).value).abs().max() > 1e-2


@pytest.mark.parametrize("standardize", [True, False])
def test_standardized_rewards_are_fed_alike_in_any_unit(standardize: bool):
    """Rewards 3 r + 7 with mean and deviation in that unit; without standardizing, the policy sees the difference."""
    tasks = TabularMDP(states=3, actions=2, horizon=3)
    learner = RL2(policy=RecurrentPolicy(memory_size=8), standardize_reward=standardize)
    state = trained(learner, tasks.spec)
    batch = play(learner, tasks, state)
    stats = state.reward_stats
    other = state._replace(reward_stats={"mean": 3 * stats["mean"] + 7, "std": 3 * stats["std"]} if stats else {})
    logits, others = (
        learner.replay(now, b).dist.log_probs
        for now, b in ((state, batch), (other, batch._replace(reward=3 * batch.reward + 7)))
    )
    assert (logits - others).abs().max() < 1e-5 if standardize else (logits - others).abs().max() > 0.1


def test_the_mean_and_deviation_of_rewards_follow_each_batch_and_no_gradient():
    """The first batch gives them whole, later ones move them by a tenth; steps after a trial's end do not count."""
    tasks = Echo(horizon=4, pay=1.0, discrete=True)
    learner = RL2(policy=RecurrentPolicy(memory_size=8), standardize_reward=True, reward_scale=0.5)
    state = learner.init(tasks.spec, seeded())
    assert state.reward_stats == {"mean": 0.0, "std": 2.0}  # what reward_scale alone would do
    batch = play(learner, tasks, state)
    valid = torch.ones_like(batch.valid)
    valid[0, :, 8:] = False
    batch = batch._replace(valid=valid, reward=torch.randn(valid.shape, generator=seeded()).where(valid, 1e6))
    found = batch.reward[batch.valid]
    wanted = {"mean": found.mean(), "std": found.std(correction=0)}
    first, _ = meta_update(learner, state, [learner.credit(state, batch)])
    torch.testing.assert_close(first.reward_stats, wanted)
    again = batch._replace(reward=batch.reward * 2 + 1)
    second, _ = meta_update(learner, first, [learner.credit(first, again)])
    moved = {name: 0.9 * x + 0.1 * (2 * x + (1.0 if name == "mean" else 0.0)) for name, x in wanted.items()}
    torch.testing.assert_close(second.reward_stats, moved)


# --- the linear baseline


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
    updated, metrics = meta_update(learner, state, [batch])
    assert metrics["train/meta_gradient_norm"] == 0.0
    assert torch.equal(updated.meta["memory.weight"], state.meta["memory.weight"])
    # negative control
    _, with_head = meta_update(replace(learner, baseline=None), state, [batch])
    assert with_head["train/meta_gradient_norm"] > 0.1


# --- the scale of returns


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
    updated, _ = meta_update(learner, state._replace(return_scale=torch.zeros(0, 2)), [batch])
    assert updated.return_scale.flatten().tolist() == pytest.approx([2.0, 1.0, 7.0, 2.0], abs=1e-6)
    updated, _ = meta_update(learner, state, [batch])
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
    after, _ = meta_update(learner, state, [idle])
    assert all(x.isfinite().all() for x in after.meta.values())
    later, _ = meta_update(learner, after, [batch])
    if met:
        assert torch.equal(after.return_scale[1], state.return_scale[1])
        assert later.return_scale[1].tolist() == pytest.approx([50 + 5.1, 1.0])
    else:
        assert later.return_scale[1].tolist() == pytest.approx([101.0, 1.0])


def test_returns_that_are_all_equal_have_a_scale():
    learner = RL2(policy=VALUED)
    state = valued(learner)._replace(return_scale=torch.zeros(0, 2))
    updated, metrics = meta_update(learner, state, [judged([[1.0, 1.0]] * 2, [[0.5, -0.5]] * 2, [[3.0, 3.0]] * 2)])
    assert updated.return_scale[:, 0].tolist() == pytest.approx([3.0, 3.0])
    assert (updated.return_scale[:, 1] > 0).all()
    assert all(x.isfinite().all() for x in updated.meta.values())
    assert math.isfinite(metrics["train/value_loss"])
