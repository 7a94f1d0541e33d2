"""The belief of experiments/reward_belief.py: Bayes' rule by hand, acting as training recomputes it, goals found."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl import presets
from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.extensions import LEARNERS
from metarl.rollout import rollout
from metarl.runs.code import run_code
from metarl.runs.experiment import Experiment
from metarl.runs.snapshot import initial_progress
from metarl.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
NUM_TASKS, WIDTH = 20, 2  # numbers of a navigation task


@pytest.fixture(scope="module")
def learner() -> Iterator[Any]:
    known = [(registry, dict(registry)) for registry in (LEARNERS, presets._KNOWN)]
    run_code(Path(__file__).parents[2] / "experiments" / "reward_belief.py")
    yield LEARNERS["RewardBelief"](hidden=(0, 1), model_size=32, candidates=100, model_updates=150, epochs=1)
    for registry, before in known:
        registry.clear()
        registry.update(before)


@pytest.fixture(scope="module")
def trained(learner: Any) -> tuple[Experiment, Any, list[dict[str, float]]]:
    """Three updates: the policy is random still, and what is to be found is where the goal lies."""
    task = find_preset("navigation", "maml2017", horizon=30)
    run = Experiment(task, learner, num_tasks=NUM_TASKS, num_envs=1, episodes=2, num_threads=1)
    progress, env, rows = initial_progress(run), run.make_env(NUM_TASKS, 1, stream="resets"), []
    train(run.learner, run.task, env, progress, iterations=3, episodes=2, begin=lambda: None, log=rows.append)
    return run, progress.learner_state, rows


def test_the_belief_is_bayes_rule_on_gaussian_rewards_cut_at_the_most_a_step_may_say(
    learner: Any, trained: Any
) -> None:
    _, state, _ = trained
    seen, reward = torch.randn(5, 3 * 2 + 2), torch.randn(5)
    evidence = learner.model.evidence(state.model, state.known, seen, reward)
    candidates = state.known["spread"]
    mean, std = state.known["reward"]
    likelihood = torch.ones(len(candidates), dtype=torch.float64)
    for step in range(5):
        for number, candidate in enumerate(candidates):
            predicted = learner.model.predicted(state.model, state.known, seen[step], candidate)
            error = ((reward[step] - mean) / std - predicted) / (learner.temper * state.known["error"])
            likelihood[number] *= max(float(torch.exp(-0.5 * error**2)), float(torch.exp(torch.tensor(-3.0))))
    posterior = (likelihood / likelihood.sum()).float()
    expected = posterior @ candidates
    spread = (posterior @ (candidates - expected).square()).sqrt()
    torch.testing.assert_close(
        learner.model.features(state.known, evidence.sum(0)), torch.cat([expected, spread]), atol=1e-4, rtol=1e-4
    )


def test_what_training_recomputes_is_what_the_policy_saw(learner: Any, trained: Any) -> None:
    run, state, _ = trained
    env = run.make_env(4, 1, stream="test")
    env.set_tasks(run.task.sample(4, torch.Generator().manual_seed(1)))
    batch, _ = rollout(env, learner.act, learner.actor(state, 4), 2, torch.Generator().manual_seed(2), trials=True)
    dist = learner.replay(state, learner.credit(state, batch)).dist
    torch.testing.assert_close(dist.mean[batch.valid], batch.dist.mean[batch.valid], atol=1e-4, rtol=1e-4)


def test_goals_are_found(trained: Any) -> None:
    """Uniform in [-1, 1], a goal is .58 from the middle, root mean square; the belief's mean is nearer to it."""
    *_, rows = trained
    assert rows[-1]["train/belief_miss"] < 0.35


def test_nothing_is_believed_before_there_is_a_model(learner: Any) -> None:
    spec = find_preset("navigation", "maml2017").spec
    state = learner.init(spec, torch.Generator().manual_seed(0))
    assert not learner.model.evidence(state.model, state.known, torch.randn(3, 8), torch.randn(3)).any()


def test_what_is_to_be_inferred_has_to_be_named(learner: Any) -> None:
    with pytest.raises(BadField, match=r"hidden is \(\): name the task's parameters"):
        replace(learner, hidden=())
