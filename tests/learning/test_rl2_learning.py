"""RL² learns what it is for, on tasks whose best return is known; each gate with what must not pass it.

Correctness is the subject of test_rl2_update.py and its neighbours. Gates come from pilots of the very configurations
"""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from toy_tasks import DelayedRecall, SafeRisky

from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import TaskDistribution
from metarl.envs.small.bandit import Bandit
from metarl.evaluate import meta_test
from metarl.networks.recurrent import ActorCritic, RecurrentPolicy
from metarl.seeds import stream
from metarl.train import Progress, train
from metarl.types import Params

pytestmark = pytest.mark.usefixtures("one_thread")


class Earned(NamedTuple):
    """Return of a trial."""

    mean: float
    standard_error: float


def earned(
    tasks: TaskDistribution,
    learner: RL2,
    *,
    episodes: int,
    iterations: int,
    trials: int,
    test_tasks: Tensor,
    seed: int = 0,
) -> Earned:
    """Trains on ``iterations`` x ``trials`` trials; then one trial of each of the test tasks, actions sampled."""
    learner = replace(learner, anneal_updates=iterations)
    env = tasks.make(trials, 1, seed=seed)
    state = learner.init(env.spec, stream(seed, "init"))
    progress = Progress(state, *(stream(seed, name) for name in ("tasks", "actions", "updates")))
    train(
        learner,
        tasks,
        env,
        progress,
        iterations=iterations,
        episodes=episodes,
        begin=lambda: None,
        log=lambda metrics: None,
    )
    env = tasks.make(len(test_tasks), 1, seed=seed + 1)
    returns = meta_test(learner, progress.learner_state, env, test_tasks, episodes=episodes, seed=seed + 1).returns
    of_trial = returns.sum((1, 2))
    return Earned(of_trial.mean().item(), of_trial.std().item() / math.sqrt(len(of_trial)))


class ForgetfulPolicy(RecurrentPolicy):
    """Begins every step with an empty memory: where an episode is one step, memory reset at the end of episodes."""

    def __call__(self, params: Params, inputs: Tensor, memory: Any) -> ActorCritic:
        steps = inputs.flatten(0, 1).unsqueeze(1)
        dist, value, _ = super().__call__(params, steps, self.empty_memory(len(steps), steps.device))
        dist, value = tree_map(lambda x: x.squeeze(1).unflatten(0, inputs.shape[:2]), (dist, value))
        return ActorCritic(dist, value, memory)


LEARNER = RL2(
    policy=RecurrentPolicy("gru", memory_size=32), gae_lambda=0.3, learning_rate=0.02, epochs=4, minibatches=4
)
EVENLY = (torch.arange(2000) % 2).float()
"""Of the two toy tasks: half of the trials each way."""

# --- the price of exploring is paid in one episode and earned back in others ------------------------


def safe_risky(learner: RL2, seed: int = 0) -> Earned:
    learner = replace(learner, entropy_bonus=0.05)
    return earned(SafeRisky(safe=0.55), learner, episodes=6, iterations=40, trials=100, test_tasks=EVENLY, seed=seed)


def test_exploring_is_learned_where_only_later_episodes_pay_for_it():
    """6 episodes, safe arm .55: at best .5 + 5 (.5 + .5 * .55) = 4.375, never exploring 6 * .55 = 3.3."""
    assert SafeRisky().optimum(6) == pytest.approx(4.375)
    assert SafeRisky().myopic(6) == pytest.approx(3.3)
    assert safe_risky(LEARNER).mean > 4.25


@pytest.mark.slow
def test_exploring_is_not_learned_where_credit_stops_at_the_end_of_an_episode():
    """Negative control: an episode is one step, so that is a discount of 0."""
    assert safe_risky(replace(LEARNER, discount=0.0)).mean < 3.7


# --- memory over an episode in which nothing is to be seen -----------------------------------------


def delayed_recall(policy: RecurrentPolicy, seed: int = 0) -> Earned:
    learner = replace(LEARNER, policy=policy, entropy_bonus=0.05)
    return earned(DelayedRecall(), learner, episodes=3, iterations=30, trials=100, test_tasks=EVENLY, seed=seed)


def test_what_was_seen_in_the_first_episode_is_known_in_the_third():
    assert delayed_recall(LEARNER.policy).mean > 0.95


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(replace(LEARNER.policy, memory="none"), id="none", marks=pytest.mark.slow),
        pytest.param(ForgetfulPolicy(**vars(LEARNER.policy)), id="reset"),
    ],
)
def test_without_memory_across_episodes_it_is_not(policy: RecurrentPolicy):
    """Negative controls: no memory, and one that is reset at the end of an episode, earn at most a coin's .5, within
    five standard errors (.011) of 2000 trials.
    """
    assert delayed_recall(policy).mean < 0.5 + 5 * 0.0112


# --- a bandit whose optimum is computed ------------------------------------------------------------


def bernoulli(policy: RecurrentPolicy, seed: int = 0) -> Earned:
    tasks = Bandit(arms=2)
    test_tasks = tasks.sample(10_000, stream(7, "test tasks"))
    learner = replace(LEARNER, policy=policy)
    return earned(tasks, learner, episodes=10, iterations=40, trials=200, test_tasks=test_tasks, seed=seed)


def best_return(pulls: int, counts: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))) -> float:
    """Of Bernoulli arms with uniform priors, by dynamic programming over (successes, failures) of each arm."""
    known: dict[tuple, float] = {}

    def value(pulls: int, counts: tuple[tuple[int, int], ...]) -> float:
        if pulls == 0:
            return 0.0
        if (pulls, counts) not in known:
            choices = []
            for arm, (wins, losses) in enumerate(counts):
                p = (wins + 1) / (wins + losses + 2)
                won = (*counts[:arm], (wins + 1, losses), *counts[arm + 1 :])
                lost = (*counts[:arm], (wins, losses + 1), *counts[arm + 1 :])
                choices.append(p * (1 + value(pulls - 1, won)) + (1 - p) * value(pulls - 1, lost))
            known[pulls, counts] = max(choices)
        return known[pulls, counts]

    return value(pulls, counts)


def test_a_bandit_is_played_well_and_never_better_than_can_be():
    """10 pulls of 2 arms: at best 6.021786, at random 5. More than the best by four standard errors is a leak."""
    assert best_return(2) == pytest.approx(13 / 12)
    assert best_return(5) == pytest.approx(26 / 9)
    assert best_return(10) == pytest.approx(6.021786, abs=1e-6)
    mean, standard_error = bernoulli(LEARNER.policy)
    assert mean > 5.67
    assert mean < best_return(10) + 4 * standard_error


@pytest.mark.slow
def test_a_bandit_is_not_played_well_without_memory():
    """Negative control: who cannot use payoffs earns 10 / 2, whatever is learned, within five standard errors."""
    mean, standard_error = bernoulli(replace(LEARNER.policy, memory="none"))
    assert abs(mean - 5) < 5 * standard_error
