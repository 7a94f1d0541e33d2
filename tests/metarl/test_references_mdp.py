"""Reference agents on tabular MDPs against arithmetic."""

import pytest
import torch
from reference_checks import WORLDS, assert_mean, nothing_before, seeded, step, trials
from torch import Tensor

from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.reports.references import bounds, references
from metarl.reports.references.mdp import (
    BEB,
    PSRL,
    UCRL2,
    EpsilonGreedyMDP,
    GreedyMDP,
    MDPAgent,
    Memory,
    OptimisticPSRL,
    empty,
)
from metarl.reports.references.planning import MDP, action_values, best_expectation, optimal_value
from metarl.rollout import rollout

pytestmark = pytest.mark.usefixtures("one_thread")
STAY_OR_GO = MDP(
    transition=torch.tensor([[[1.0, 0.0], [0.25, 0.75]], [[0.0, 1.0], [0.0, 1.0]]]),
    reward=torch.tensor([[1.0, 0.0], [3.0, 0.0]]),
)


def parameter(mdp: MDP) -> Tensor:
    return torch.cat([mdp.transition, mdp.reward.unsqueeze(-1)], dim=-1).unsqueeze(0)


def test_the_optimal_value_by_hand():
    """One step: stay, 1. Two: stay 1 + 1 = 2, go 3/4 * 3 + 1/4 * 1 = 2.5. Three: stay 1 + 2.5, go 3/4 * 6 + 1/4 * 2.5
    = 5.125.
    """
    task = parameter(STAY_OR_GO)
    assert [optimal_value(task, horizon).item() for horizon in (1, 2, 3)] == pytest.approx([1.0, 2.5, 5.125])
    values = action_values(STAY_OR_GO, 2)
    torch.testing.assert_close(values, torch.tensor([[[2.0, 2.5], [6.0, 3.0]], [[1.0, 0.0], [3.0, 0.0]]]))
    assert bounds(TabularMDP(states=2, actions=2, horizon=3), task, 4) == pytest.approx({"knows the task": 4 * 5.125})


def test_the_most_optimistic_next_state_by_hand():
    """Probabilities .5 .3 .2 of values 1 0 2. Slack .4 moves .2 from the worst: .5 .1 .4; slack .6 all of it; slack
    1.4 takes .4 of the second worst, too: .1 0 .9; no slack moves more than there is.
    """
    transition = torch.tensor([0.5, 0.3, 0.2]).expand(5, 1, 3)
    slack = torch.tensor([0.0, 0.4, 0.6, 1.4, 9.0]).unsqueeze(-1)
    found = best_expectation(transition, slack, torch.tensor([1.0, 0.0, 2.0]))
    torch.testing.assert_close(found.squeeze(-1), torch.tensor([0.9, 1.3, 1.5, 1.9, 2.0]))
    many = torch.rand(40, 3, 2, 6, generator=seeded())
    many = many / many.sum(-1, keepdim=True)
    value = torch.randn(40, 6, generator=seeded(1))
    none = best_expectation(many, torch.zeros(40, 3, 2), value)
    torch.testing.assert_close(none, torch.einsum("bsan,bn->bsa", many, value), rtol=1e-5, atol=1e-6)
    boundless = best_expectation(many, torch.full((40, 3, 2), 2.0), value)
    torch.testing.assert_close(boundless, value.amax(-1)[:, None, None].expand(40, 3, 2), rtol=1e-5, atol=1e-6)


def at(state: int, worlds: int = 1, states: int = 2) -> Tensor:
    return torch.eye(states)[state].expand(1, worlds, states)


def seen(agent: MDPAgent, worlds: int = 1) -> Memory:
    """Two steps of an episode of horizon 2: from 0 by action 1 to 1 for 2, from 1 by action 0 for -1; and a reset."""
    generator = seeded()
    _, _, memory = agent.act(agent.actor(None, 1), at(0, worlds), nothing_before(worlds, 2), generator)
    _, _, memory = agent.act(memory, at(1, worlds), step(worlds, 2, 1, 2.0), generator)
    _, _, memory = agent.act(memory, at(0, worlds), step(worlds, 2, 0, -1.0, ended=True), generator)
    return memory


def test_what_is_seen_of_an_mdp():
    """The state after the reset is not where the last step led."""
    memory = seen(GreedyMDP(2))
    assert memory.transitions[0, 0, 0, 1].tolist() == [0.0, 1.0]
    assert memory.transitions.sum() == 1
    assert memory.reward[0, 0].tolist() == [[0.0, 2.0], [-1.0, 0.0]]
    assert memory.visits[0, 0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert (memory.episode.item(), memory.clock.item()) == (2, 0)
    # prior and one observation weigh the same: (1 + 2) / 2 and (1 - 1) / 2
    mean = memory.mean()
    assert mean.reward[0, 0].tolist() == [[1.0, 1.5], [0.0, 1.0]]
    assert mean.transition[0, 0, 0, 1].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert mean.transition[0, 0, 1].tolist() == [[0.5, 0.5]] * 2
    empirical = memory.empirical()
    assert empirical.reward[0, 0].tolist() == [[0.0, 2.0], [-1.0, 0.0]]
    assert empirical.transition[0, 0].tolist() == [[[0.5, 0.5], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]


def test_draws_have_the_moments_of_the_posterior():
    """One observation of N(mean, 1), mean ~ N(1, 1): N(1.5, 1/2). Next state by action 1 of 0: Beta(1, 2)."""
    draw = seen(GreedyMDP(2), WORLDS).sample(seeded(5))
    reward, unseen = draw.reward[0, :, 0, 1], draw.reward[0, :, 1, 1]
    assert_mean(reward, 1.5)
    assert_mean((reward - 1.5).square(), 0.5)
    assert_mean((unseen - 1.0).square(), 1.0)
    stays = draw.transition[0, :, 0, 1, 0]
    assert_mean(stays, 1 / 3)
    assert_mean((stays - 1 / 3).square(), 1 / 18)
    torch.testing.assert_close(draw.transition.sum(-1), torch.ones(1, WORLDS, 2, 2))


def remembering(mdp: MDP, horizon: int, count: float, worlds: int = 1) -> Memory:
    """Everything seen ``count`` times, as often as it should be, at the start of a trial."""
    states, actions = mdp.reward.shape[-2:]
    memory = empty(at(0, worlds, states), actions, horizon)
    visits = torch.full_like(memory.visits, count)
    return memory._replace(
        transitions=count * mdp.transition + 0 * memory.transitions, reward=visits * mdp.reward, visits=visits
    )


def test_ucrl2_by_hand():
    """Horizon 2, scaling 0.1, third episode; action 0 of state 0 was taken 4 times, for 2 in all, and led to state 0
    three times and to state 1 once. log = ln(2 * 2 * 2 * 4 / .05) = 6.4615. Its slacks: reward .1 sqrt(4 log / 4) =
    .2542, next state .1 sqrt(8 log / 4) = .3595. All others: .1 sqrt(4 log) = .5084 and .1 sqrt(8 log) = .7190.
    """
    memory = empty(at(0), 2, 2)
    for name, value in (("transitions", torch.tensor([3.0, 1.0])), ("reward", 2.0), ("visits", 4.0)):
        getattr(memory, name)[0, 0, 0, 0] = value
    plan = UCRL2(2, scaling=0.1).plan(memory._replace(episode=torch.tensor([[3]])), seeded())[0, 0]
    last = [[0.5 + 0.2542, 0.5084], [0.5084, 0.5084]]
    torch.testing.assert_close(plan[1], torch.tensor(last), rtol=0, atol=2e-4)
    # state 0 is the better one, .7542 against .5084: half the slack moves there
    known = 0.7542 + (0.75 + 0.1798) * 0.7542 + (0.25 - 0.1798) * 0.5084
    unknown = 0.5084 + (0.5 + 0.3595) * 0.7542 + (0.5 - 0.3595) * 0.5084
    torch.testing.assert_close(plan[0], torch.tensor([[known, unknown], [unknown, unknown]]), rtol=0, atol=3e-4)


def test_beb_and_epsilon_greedy_by_hand():
    """Posterior mean rewards 1, 1.5 and 0, 1 after the two steps seen; visited ones get beta / 2, others beta."""
    memory = seen(GreedyMDP(2))
    last = BEB(2, beta=3.0).plan(memory, seeded())[0, 0, 1]
    assert last.tolist() == [[4.0, 3.0], [1.5, 4.0]]
    assert EpsilonGreedyMDP(2, 0.2).probability(torch.tensor([[[1.0, 2.0]]])).tolist()[0][0] == pytest.approx(
        [0.1, 0.9]
    )


def test_the_plan_is_followed_by_clock_and_state():
    """With two steps left it pays to go, with one to stay; both plans are known."""
    agent = GreedyMDP(2)
    memory = remembering(STAY_OR_GO, 2, 1e6)
    _, dist, memory = agent.act(memory, at(0), nothing_before(1, 2), seeded())
    assert dist.log_probs.exp()[0, 0].tolist() == [0.0, 1.0]
    plan = memory.plan
    _, dist, memory = agent.act(memory, at(0), step(1, 2, 1, 0.0), seeded())
    assert dist.log_probs.exp()[0, 0].tolist() == [1.0, 0.0]
    assert memory.plan is plan
    assert dist.log_probs.isfinite().all()


def test_each_world_plans_when_its_own_episode_begins():
    agent = PSRL(2)
    _, _, first = agent.act(None, at(0, 2), nothing_before(2, 2), seeded(1))
    previous = step(2, 2, 0, 1.0)._replace(truncated=torch.tensor([[True, False]]))
    _, _, second = agent.act(first, at(0, 2), previous, seeded(2))
    assert (second.plan[0, 0] != first.plan[0, 0]).any()
    assert torch.equal(second.plan[0, 1], first.plan[0, 1])
    assert second.clock.tolist() == [[0, 1]]
    assert second.episode.tolist() == [[2, 1]]
    assert second.transitions.sum((-3, -2, -1)).tolist() == [[0.0, 1.0]]
    assert second.visits.sum((-2, -1)).tolist() == [[1.0, 1.0]]


def test_optimistic_psrl_takes_the_largest_of_its_draws():
    memory = seen(PSRL(2), worlds=3)
    single = PSRL(2).plan(memory, seeded(7))
    assert torch.equal(OptimisticPSRL(2, samples=1).plan(memory, seeded(7)), single)
    generator = seeded(7)
    draws = torch.stack([action_values(memory.sample(generator), 2) for _ in range(4)])
    assert torch.equal(OptimisticPSRL(2, samples=4).plan(memory, seeded(7)), draws.amax(0))
    assert not torch.equal(draws.amax(0), single)


MDP_AGENTS = [PSRL(10), OptimisticPSRL(10), UCRL2(10, 0.1), BEB(10, 1.0), EpsilonGreedyMDP(10, 0.0), GreedyMDP(10)]


@pytest.mark.parametrize("agent", MDP_AGENTS, ids=repr)
def test_who_has_seen_it_all_plays_the_optimal_policy(agent: MDPAgent):
    task = TabularMDP()
    tasks = task.sample(40, seeded(8))
    mdp = MDP(tasks[:, None, :, :, :-1], tasks[:, None, :, :, -1])
    plan = agent.plan(remembering(mdp, 10, 1e7), seeded())
    best = action_values(mdp, 10)
    torch.testing.assert_close(plan, best, rtol=0, atol=0.05)
    chosen = best.gather(-1, plan.argmax(-1, keepdim=True)).squeeze(-1)
    assert (best.amax(-1) - chosen).max() < 0.02
    assert (best.amax(-1) - best.amin(-1)).min() > 0.1  # negative control: other actions are worse


def test_the_optimal_policy_earns_the_optimal_value():
    """Played in the real worlds by an agent that has nothing to learn any more."""
    task = TabularMDP()
    tasks = task.sample(20, seeded(9))
    env = task.make(20, 100, seed=2)
    env.set_tasks(tasks)
    mdp = MDP(tasks[:, None, :, :, :-1], tasks[:, None, :, :, -1])
    memory = remembering(MDP(*(x.expand(20, 100, *x.shape[2:]) for x in mdp)), 10, 1e7, worlds=100)
    memory = memory._replace(**{name: value.expand(20, *value.shape[1:]) for name, value in memory._asdict().items()})
    batch, _ = rollout(env, GreedyMDP(10).act, memory, 1, seeded())
    earned = batch.reward.sum(-1)
    error = earned - optimal_value(tasks, 10).float().unsqueeze(-1)
    assert_mean(error.flatten(), 0.0)


def test_before_any_experience_all_actions_of_a_planner_are_equal():
    for agent in (GreedyMDP(10), BEB(10, 2.0), UCRL2(10, 0.1), PSRL(10)):
        action, _, _ = agent.act(None, at(0, 2000, 10), nothing_before(2000, 5), seeded(1))
        for choice in range(5):
            assert_mean(action[0, :, choice], 0.2, repr(agent))


def test_trials_in_mdps():
    """Mean rewards are 1 a step on average: random play earns 100 in 10 episodes of 10 steps. Nobody exceeds who
    knows the task, everybody exceeds random play, and those who explore less earn more in a trial so short.
    """
    task = TabularMDP()
    tasks = task.sample(150, seeded(11))
    scores = {name: trials(agent, task, 10, tasks) for name, agent in references(task, 10).items()}
    assert_mean(scores["random"], 100.0)
    limit = bounds(task, tasks, 10)["knows the task"]
    for name, score in scores.items():
        assert score.mean() < limit - 20, name
        assert name == "random" or score.mean() > 120, name
    assert scores["greedy"].mean() > scores["PSRL"].mean() + 5


def test_a_planner_alone_and_among_others_plans_the_same():
    for agent in (GreedyMDP(2), BEB(2, 1.0), UCRL2(2, 0.1)):
        alone, among = seen(agent), seen(agent, worlds=3)
        torch.testing.assert_close(among.plan[:, 1:2], alone.plan, rtol=1e-6, atol=1e-6)
