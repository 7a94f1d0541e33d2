"""Reference agents on bandits against arithmetic, exact returns and published numbers; the table of them by task."""

import itertools
import math

import pytest
import torch
from reference_checks import WORLDS, assert_mean, nothing_before, seeded, step, trials
from torch import Tensor

from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.reports.references import bounds, references
from metarl.reports.references.bandit import (
    TUNED,
    UCB1,
    BanditAgent,
    Counts,
    EpsilonGreedy,
    Gittins,
    Greedy,
    OptimisticThompsonSampling,
    ThompsonSampling,
)
from metarl.reports.references.choice import Random, categorical, explore, uniform_over_best
from metarl.reports.references.gittins import bayes_optimal_value, gittins_indices, num_states
from metarl.reports.references.mdp import (
    BEB,
    UCRL2,
    EpsilonGreedyMDP,
    MDPAgent,
)
from metarl.types import Agent

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIMUM = {(5, 10): 6.659988, (10, 10): 6.714, (50, 10): 6.714, (2, 20): 12.431265, (2, 2): 13 / 12, (3, 10): 6.409643}
GREEDY = {(2, 10): 6.005811, (3, 10): 6.383116, (5, 10): 6.626225}
THOMPSON = {(2, 10): 5.704544, (3, 10): 5.863105, (5, 10): 5.833304}


def after(agent: BanditAgent, arms: int, *outcomes: tuple[int, int], worlds: int = 1) -> tuple[Tensor, Counts]:
    """Probabilities of the next pull [world, arm] after (arm, payoff) ..., and the counts."""
    generator, obs = seeded(), torch.ones(1, worlds, 1)
    _, dist, actor = agent.act(agent.actor(None, 1), obs, nothing_before(worlds, arms), generator)
    for arm, payoff in outcomes:
        _, dist, actor = agent.act(actor, obs, step(worlds, arms, arm, float(payoff), ended=True), generator)
    return dist.log_probs[0].exp(), actor


def pulls(arm: int, successes: int, failures: int) -> list[tuple[int, int]]:
    return [(arm, 1)] * successes + [(arm, 0)] * failures


# --- choices


def test_probabilities_of_zero_have_finite_logarithms():
    dist = categorical(torch.tensor([[0.25, 0.0, 0.75]]))
    assert dist.log_probs.isfinite().all()
    assert dist.log_prob(torch.tensor([[1.0, 0.0, 0.0]])).item() == pytest.approx(math.log(0.25), rel=1e-6)
    assert dist.log_prob(torch.tensor([[0.0, 1.0, 0.0]])).item() < -1e6
    assert dist.entropy().item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75), rel=1e-6)
    many = categorical(dist.log_probs.exp().expand(WORLDS, 3)).sample(seeded())
    assert many[:, 1].sum() == 0
    assert_mean(many[:, 0], 0.25)


def test_the_best_share_their_probability():
    score = torch.tensor([[3.0, 1.0, 3.0, 2.999], [0.0, 0.0, 0.0, 0.0]])
    assert uniform_over_best(score).tolist() == [[0.5, 0.0, 0.5, 0.0], [0.25] * 4]
    assert uniform_over_best(score, tolerance=0.01)[0].tolist() == pytest.approx([1 / 3, 0.0, 1 / 3, 1 / 3])
    explored = explore(torch.tensor([0.5, 0.0, 0.5, 0.0]), 0.2)
    assert explored.tolist() == pytest.approx([0.45, 0.05, 0.45, 0.05])


@pytest.mark.parametrize("agent", [Greedy(), UCB1(0.2), Gittins(0.9, 10), ThompsonSampling(), Random()], ids=repr)
def test_equal_arms_are_equally_likely(agent: Agent):
    """The first of equal ones, as argmax takes it, would be a fault that no return of uniform tasks shows."""
    action, _, _ = agent.act(None, torch.ones(1, WORLDS, 1), nothing_before(WORLDS, 5), seeded(1))
    assert (action.sum(-1) == 1).all()
    for arm in range(5):
        assert_mean(action[0, :, arm], 0.2)


# --- bandits by hand


def test_payoffs_are_counted_by_arm():
    probability, counts = after(Greedy(), 3, (0, 1), (0, 0), (2, 1), (0, 0), worlds=2)
    assert counts.successes[0].tolist() == [[1.0, 0.0, 1.0]] * 2
    assert counts.failures[0].tolist() == [[2.0, 0.0, 0.0]] * 2
    assert counts.mean()[0, 0].tolist() == pytest.approx([2 / 5, 1 / 2, 2 / 3])
    assert probability.tolist() == [[0.0, 0.0, 1.0]] * 2


def test_greedy_and_epsilon_greedy_by_hand():
    """After a success and a failure an arm is as good as an untouched one: (1 + 1) / (2 + 2) = 1 / 2."""
    assert after(Greedy(), 3, (0, 1), (0, 0))[0][0].tolist() == pytest.approx([1 / 3] * 3)
    assert after(Greedy(), 3, (0, 1), (0, 0), (0, 0))[0][0].tolist() == pytest.approx([0, 1 / 2, 1 / 2])
    assert after(EpsilonGreedy(0.3), 3, (1, 1))[0][0].tolist() == pytest.approx([0.1, 0.8, 0.1])
    assert after(EpsilonGreedy(0.3), 3, (1, 0))[0][0].tolist() == pytest.approx([0.45, 0.1, 0.45])


def test_ucb1_by_hand():
    """s = 3, 0, 0 of n = 4, 1, 0 pulls, t = 5. Arm 0: 4/6 + c sqrt(2 ln 7 / 6) = .66667 + .80538 c; arm 1:
    1/3 + 1.13898 c; arm 2: 1/2 + c sqrt(2 ln 7 / 2) = .5 + 1.39496 c. They cross at c = .16667 / .58958 = .28269.
    """
    history = [*pulls(0, 3, 1), (1, 0)]
    assert after(UCB1(0.281), 3, *history)[0][0].tolist() == [1.0, 0.0, 0.0]
    assert after(UCB1(0.284), 3, *history)[0][0].tolist() == [0.0, 0.0, 1.0]


def test_gittins_agent_by_hand():
    """At discount 0.9 the index of an untouched arm is .7029: below that of an arm with 2 successes and a failure
    (.7072), above that of 3 successes and 2 failures (.6579), though the mean of that, 4 / 7, is above 1 / 2.
    """
    agent = Gittins(0.9, 10)
    assert after(agent, 2, *pulls(0, 2, 1))[0][0].tolist() == [1.0, 0.0]
    assert after(agent, 2, *pulls(0, 3, 2))[0][0].tolist() == [0.0, 1.0]
    assert after(agent, 2, *pulls(1, 9, 0))[0][0].tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="after 10 pulls"):
        after(agent, 2, *pulls(1, 9, 1))


def test_thompson_sampling_by_hand():
    """Arm 0 is Beta(3, 1), density 3 x^2; arm 1 is Beta(1, 2), density 2 (1 - y). P(x > y) = 1 - 2 (1/4 - 1/5)
    = 0.9. Optimistic: x' = max(x, 3/4), y' = max(y, 1/3), and arm 1 wins where y > 3/4 and y > x:
    2 [y^4 / 4 - y^5 / 5] from 3/4 to 1 = 0.0367188.
    """
    history = [(0, 1), (0, 1), (1, 0)]
    plain, _ = after(ThompsonSampling(), 2, *history, worlds=WORLDS)
    assert_mean(plain[:, 0], 0.9)
    optimistic, _ = after(OptimisticThompsonSampling(), 2, *history, worlds=WORLDS)
    assert_mean(optimistic[:, 1], 0.0367188)


@pytest.mark.parametrize("agent", [Greedy(), EpsilonGreedy(0.1), UCB1(0.3), Gittins(0.9, 10)], ids=repr)
def test_a_world_alone_and_among_others_decides_the_same(agent: BanditAgent):
    """With other histories around it."""
    alone, _ = after(agent, 3, *pulls(0, 2, 1), *pulls(1, 1, 1))
    successes = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 5.0, 1.0], [1.0, 1.0, 1.0]], [[0.0, 0.0, 4.0]] * 3])
    failures = torch.tensor([[[1.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 2.0, 2.0]], [[0.0, 1.0, 0.0]] * 3])
    probability = agent.probability(Counts(successes, failures), seeded())
    torch.testing.assert_close(probability[0, 0], alone[0], rtol=1e-6, atol=0)
    assert not torch.allclose(probability[0, 1], alone[0])


# --- bandits, exact returns


def exact_return(agent: BanditAgent, arms: int, num_pulls: int) -> float:
    """Expected return over uniform tasks of an agent whose probabilities depend on the counts alone, by summing over
    all it can see; the probabilities are asked for in one batch a pull.
    """
    reach = {((0, 0),) * arms: 1.0}
    total = 0.0
    for _ in range(num_pulls):
        counts = torch.tensor(list(reach), dtype=torch.float32).unsqueeze(0)  # [1, world, arm, 2]
        probability = agent.probability(Counts(counts[..., 0], counts[..., 1]), seeded())[0].double().tolist()
        following: dict[tuple[tuple[int, int], ...], float] = {}
        for (state, weight), row in zip(reach.items(), probability, strict=True):
            for arm, chosen in enumerate(row):
                s, f = state[arm]
                mean = (s + 1) / (s + f + 2)
                total += weight * chosen * mean
                for new, chance in (((s + 1, f), mean), ((s, f + 1), 1 - mean)):
                    if chosen:
                        key = (*state[:arm], new, *state[arm + 1 :])
                        following[key] = following.get(key, 0.0) + weight * chosen * chance
        reach = following
    return total


def test_exact_returns_of_deterministic_agents():
    """Greedy's as published by the oracle table; the others' between greedy and the optimum where they should be."""
    assert exact_return(Greedy(), 2, 10) == pytest.approx(GREEDY[2, 10], abs=1e-6)
    assert exact_return(Greedy(), 3, 10) == pytest.approx(GREEDY[3, 10], abs=1e-6)
    assert exact_return(Greedy(), 2, 20) == pytest.approx(12.365352, abs=1e-6)
    assert exact_return(EpsilonGreedy(1.0), 2, 5) == pytest.approx(2.5, abs=1e-6)  # memoryless: n / 2
    assert exact_return(Greedy(), 2, 2) == pytest.approx(13 / 12, abs=1e-6)
    optimum = bayes_optimal_value(2, 20)
    assert optimum is not None
    for agent in (Gittins(0.95, 20), UCB1(0.1)):
        assert 12.365352 + 0.02 < exact_return(agent, 2, 20) < optimum - 1e-3
    for epsilon in (0.1, 0.5):
        assert exact_return(EpsilonGreedy(epsilon), 2, 10) < GREEDY[2, 10] - 0.05


@pytest.mark.parametrize(("arms", "num_pulls"), list(GREEDY))
def test_simulated_returns_are_the_exact_ones(arms: int, num_pulls: int):
    task = Bandit(arms=arms)
    tasks = task.sample(WORLDS, seeded(arms))
    for agent, exact in ((Greedy(), GREEDY), (ThompsonSampling(), THOMPSON)):
        assert_mean(trials(agent, task, num_pulls, tasks), exact[arms, num_pulls], repr(agent))


@pytest.mark.parametrize("arms", [5, 50])
def test_no_agent_exceeds_the_optimum(arms: int):
    task = Bandit(arms=arms)
    tasks = task.sample(WORLDS if arms == 5 else 2000, seeded(10 + arms))
    limits = bounds(task, tasks, 10)
    assert limits["Bayes-optimal"] == pytest.approx(OPTIMUM[arms, 10], abs=1e-4)
    assert limits["Bayes-optimal"] < limits["knows the task"] == pytest.approx(10 * arms / (arms + 1), abs=0.05)
    scores = {name: trials(agent, task, 10, tasks) for name, agent in references(task, 10).items()}
    for name, score in scores.items():
        assert score.mean() < limits["Bayes-optimal"] + 4 * score.std() / math.sqrt(len(score)), name
        assert name == "random" or score.mean() > 5.1, name
    assert_mean(scores["random"], 5.0)
    for good in ("Gittins index", "UCB1"):
        assert scores[good].mean() > limits["Bayes-optimal"] - 4 * scores[good].std() / math.sqrt(len(tasks)), good


# --- exact numbers


@pytest.mark.parametrize(("arms", "num_pulls"), list(OPTIMUM))
def test_bayes_optimal_values(arms: int, num_pulls: int):
    digits = 1e-4 if arms in (10, 50) else 1e-6  # as published
    assert bayes_optimal_value(arms, num_pulls) == pytest.approx(OPTIMUM[arms, num_pulls], abs=digits)


def test_bayes_optimal_values_by_hand():
    """One pull: 1/2. Two arms, five pulls: 26/9. One arm: nothing to choose."""
    assert bayes_optimal_value(5, 1) == 0.5
    assert bayes_optimal_value(2, 5) == pytest.approx(26 / 9, rel=1e-12)
    assert bayes_optimal_value(1, 7) == pytest.approx(3.5, rel=1e-12)
    # more arms than pulls are never touched
    assert bayes_optimal_value(9, 6) == pytest.approx(bayes_optimal_value(6, 6), rel=1e-12)


def test_states_are_counted_before_they_are_visited():
    for arms, num_pulls in ((2, 6), (3, 5), (4, 4), (6, 3)):
        kinds = [(s, f) for s in range(num_pulls) for f in range(num_pulls - s)]
        sets = itertools.combinations_with_replacement(kinds, arms)
        assert num_states(arms, num_pulls) == sum(sum(map(sum, x)) < num_pulls for x in sets)
    for arms, num_pulls in ((2, 500), (5, 100), (50, 500)):
        assert bayes_optimal_value(arms, num_pulls) is None


PUBLISHED_INDICES = {
    0.9: ((0.7029, 0.8001, 0.8452, 0.8723, 0.8905), (0.5001, 0.6346, 0.7072, 0.7539, 0.7869)),
    0.95: ((0.7614, 0.8381, 0.8736, 0.8948, 0.9092), (0.5601, 0.6810, 0.7443, 0.7845, 0.8128)),
    0.99: ((0.8699, 0.9102, 0.9285, 0.9395, 0.9470), (0.7005, 0.7844, 0.8268, 0.8533, 0.8719)),
}


@pytest.mark.parametrize("discount", PUBLISHED_INDICES)
def test_gittins_indices_are_the_published_ones(discount: float):
    index = gittins_indices(6, discount)
    published = torch.tensor(PUBLISHED_INDICES[discount], dtype=torch.float64).T
    torch.testing.assert_close(index[:5, :2], published, rtol=0, atol=6e-5 + 2e-5)  # of rounding, of the grid


def test_gittins_indices_are_ordered_and_above_the_mean():
    index = gittins_indices(12, 0.95)
    s, f = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    defined = s + f < 12
    assert torch.equal(index.isfinite(), defined)
    assert (index > (1 + s) / (2 + s + f))[defined].all()
    assert (index.diff(dim=0) > 0)[defined[1:]].all()
    assert (index.diff(dim=1) < 0)[defined[:, 1:]].all()
    # who does not care for the future goes by the mean
    torch.testing.assert_close(gittins_indices(4, 1e-6)[2, 1].item(), 3 / 5, rtol=0, atol=1e-4)
    # a longer trial has the same indices
    torch.testing.assert_close(gittins_indices(30, 0.95)[5, 6], index[5, 6], rtol=0, atol=2e-5)


# --- by task


def test_references_by_task():
    bandits = references(Bandit(arms=10), 100)
    assert list(bandits) == [
        "random",
        "Gittins index",
        "Thompson sampling",
        "OTS (May 2012)",
        "UCB1",
        "epsilon-greedy",
        "greedy",
    ]
    assert (bandits["UCB1"], bandits["epsilon-greedy"]) == (UCB1(0.2), EpsilonGreedy(0.01))
    assert bandits["Gittins index"] == Gittins(0.99, 100)
    assert references(Bandit(horizon=5), 2)["Gittins index"] == Gittins(0.9, 10)  # two episodes of five pulls
    mdps = references(TabularMDP(horizon=7), 25)
    assert list(mdps) == ["random", "PSRL", "OPSRL", "UCRL2", "BEB", "epsilon-greedy", "greedy"]
    assert (mdps["UCRL2"], mdps["BEB"], mdps["epsilon-greedy"]) == (
        UCRL2(7, 0.1),
        BEB(7, 1.0),
        EpsilonGreedyMDP(7, 0.01),
    )
    assert all(agent.horizon == 7 for agent in mdps.values() if isinstance(agent, MDPAgent))
    for arms, num_pulls in itertools.product((5, 10, 50), (10, 100, 500)):
        assert (num_pulls, arms) in TUNED
    assert references(Bandit(arms=3), 7).keys() == bandits.keys()  # of a size that nothing was tuned for
    assert references(TabularMDP(), 3).keys() == mdps.keys()
    assert references(Navigation(), 3) == {}


def test_bounds_by_task():
    tasks = torch.tensor([[0.2, 0.9], [0.5, 0.1]])
    assert bounds(Bandit(arms=2), tasks, 2) == pytest.approx({"knows the task": 2 * 0.7, "Bayes-optimal": 13 / 12})
    assert bounds(Bandit(arms=2), tasks, 500) == pytest.approx({"knows the task": 350.0})
    # an episode of five pulls, twice, is a trial of ten
    assert bounds(Bandit(arms=2, horizon=5), tasks, 2)["Bayes-optimal"] == pytest.approx(6.021786, abs=1e-6)
    assert bounds(Navigation(), torch.zeros(3, 2), 2) == {}
