"""``metarl probe``: ridge regression as scikit-learn's, and learners whose knowledge of the task is known."""

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from rich.console import Console
from run_checks import TINY, run_quietly
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from torch import Tensor

from metarl.algorithms.maml import MAML
from metarl.envs.fields import BadField
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.small.navigation import Navigation
from metarl.fewshot import FewShotMAML, Prototypical, Sinusoid
from metarl.fewshot.learner import LearnerState
from metarl.networks.distributions import DiagGaussian
from metarl.probing import Knowledge, of_examples, of_inner_steps, of_memory
from metarl.reports.probe import ProbePlan, best_first, probe_run, score, targets_of
from metarl.reports.ridge import PENALTIES, held_out_predictions
from metarl.reports.statistics import determination
from metarl.rollout import rollout
from metarl.runs.folder import create_run
from metarl.types import Previous

DRAWS = np.random.default_rng(0)
QUIET = Console(file=io.StringIO(), width=300)


@pytest.mark.parametrize("num_features", [3, 200])  # fewer and more than samples
def test_the_ridge_is_scikit_learns(num_features: int) -> None:
    features = DRAWS.normal(size=(60, num_features)) + 5.0
    targets = features[:, :2] @ DRAWS.normal(size=(2, 3)) + DRAWS.normal(size=(60, 3)) * [0.01, 1.0, 30.0]
    fold = DRAWS.permutation(60) % 4
    found = held_out_predictions(features, targets, fold)
    for which in range(4):
        train, test = fold != which, fold == which
        centered = features[train] - features[train].mean(0)
        scale = np.square(centered).sum(1).mean()
        oracle = RidgeCV(PENALTIES * scale, alpha_per_target=True).fit(features[train], targets[train])
        np.testing.assert_allclose(found[test], oracle.predict(features[test]), rtol=1e-4, atol=1e-4)


def test_equal_features_predict_the_mean() -> None:
    targets = DRAWS.normal(size=(20, 1))
    fold = np.arange(20) % 2
    found = held_out_predictions(np.ones((20, 3)), targets, fold)
    np.testing.assert_allclose(found[fold == 0], targets[fold == 1].mean())


def test_r_squared_is_scikit_learns() -> None:
    targets = DRAWS.normal(size=400) + 1000
    predicted = targets + 0.5 * DRAWS.normal(size=400)
    found = determination(targets, predicted)
    assert found.value == pytest.approx(r2_score(targets, predicted))
    assert found.low < found.value < found.high
    resampled = []
    for _ in range(200):
        chosen = DRAWS.integers(400, size=400)
        resampled.append(r2_score(targets[chosen], predicted[chosen]))
    assert found.low == pytest.approx(np.percentile(resampled, 2.5), abs=0.015)
    assert found.high == pytest.approx(np.percentile(resampled, 97.5), abs=0.015)


class Memory(NamedTuple):
    weights: Tensor
    steps: Tensor | None
    """[task hidden]; None before the first step."""


class Knower:
    """From step 3 of a trial on it remembers a linear function of the task, before that nothing of it."""

    def __init__(self, task: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        self.secret = task @ torch.randn(2, 8, generator=generator) + 1.0
        self.noise = torch.randn(len(task), 8, generator=generator)
        self.clock = 0

    def actor(self, state: Any, num_tasks: int) -> Memory:
        return Memory(torch.ones(num_tasks, 3), None)  # weights as long as there are tasks are no memory

    def act(self, actor: Memory, obs: Tensor, previous: Previous, generator: torch.Generator) -> Any:
        self.clock += 1
        dist = DiagGaussian(torch.zeros(*obs.shape[:2], 2), torch.zeros(*obs.shape[:2], 2))
        memory = Memory(actor.weights, self.secret.clone() if self.clock > 3 else self.noise.clone())
        return dist.sample(generator), dist, memory


def test_what_is_remembered_linearly_is_read_and_nothing_else() -> None:
    tasks = Navigation(horizon=4)
    task = tasks.sample(120, torch.Generator().manual_seed(0))
    env = tasks.make(120, 1, seed=0)
    knowledge = of_memory(Knower(task), None, env, task, 2, torch.Generator().manual_seed(0), points=100)
    assert [held.when for held in knowledge] == list(range(8))
    assert knowledge[0].features.shape == (120, 8)
    _, curves = score(knowledge, targets_of(tasks, task), seed=0)
    assert [curve.target.name for curve in curves] == ["goal x", "goal y"]
    for curve in curves:
        assert all(abs(estimate.value) < 0.15 for estimate in curve.scores[:3])
        assert all(estimate.value > 0.999999 for estimate in curve.scores[3:])
        assert all(estimate.high < 0.3 for estimate in curve.chance)


def test_choices_are_read_as_kinds() -> None:
    tasks = HalfCheetahDir(horizon=5)
    task = tasks.sample(100, torch.Generator().manual_seed(0))
    (target,) = targets_of(tasks, task)
    assert (target.name, target.measure, target.kinds) == ("direction", "accuracy", 2)
    known = torch.ones(100, dtype=torch.bool)
    noise = torch.randn(100, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    knowledge = [
        Knowledge(0, noise, known),
        Knowledge(1, torch.cat([noise, task.double()[:, None]], dim=1), known),
        Knowledge(2, noise, known & (torch.arange(100) < 10)),  # too few tasks
    ]
    when, (curve,) = score(knowledge, [target], seed=0)
    assert when == [0, 1]
    assert abs(curve.scores[0].value - 0.5) < 0.15
    assert curve.scores[1] == (1.0, 1.0, 1.0)
    assert curve.chance[1].value == pytest.approx(0.5, abs=0.1)


def test_inner_steps_give_what_they_changed() -> None:
    tasks, learner = Navigation(horizon=4), MAML(inner_lr=0.1)
    state = learner.init(tasks.spec, torch.Generator().manual_seed(0))
    task = tasks.sample(3, torch.Generator().manual_seed(1))

    def draws() -> torch.Generator:
        return torch.Generator().manual_seed(2)

    env = tasks.make(3, 5, seed=0)
    before, after = of_inner_steps(learner, state, env, task, [1.0], draws())
    assert not before.features.any()
    env = tasks.make(3, 5, seed=0)
    env.set_tasks(task)
    theta = learner.actor(state, 3)
    batch, _ = rollout(env, learner.act, theta, 1, draws())
    phi = learner.adapt(state, theta, learner.credit(state, batch))
    expected = torch.cat([(phi[name] - theta[name]).double().flatten(1) for name in theta], dim=1)
    assert torch.equal(after.features, expected)
    assert after.features.any()


def test_a_sine_wave_is_read_from_the_inner_step() -> None:
    tasks, learner = Sinusoid(shots=20), FewShotMAML(inner_lr=0.01)
    state = learner.init(tasks.spec, torch.Generator().manual_seed(0))
    task = tasks.sample(200, torch.Generator().manual_seed(1))
    knowledge = of_examples(learner, state, tasks, task, 1, torch.Generator().manual_seed(2))
    _, curves = score(knowledge, targets_of(tasks, task), seed=0)
    amplitude, phase = curves
    assert (amplitude.target.name, phase.target.name) == ("amplitude", "phase")
    assert phase.scores[0].value < 0.05
    assert phase.scores[1].value > 0.5  # the gradient is linear in a sum of sines and cosines


def test_what_has_nothing_to_probe_is_refused() -> None:
    tasks = Sinusoid()
    task = tasks.sample(4, torch.Generator().manual_seed(0))
    with pytest.raises(BadField, match="prototypical"):
        of_examples(Prototypical(), LearnerState({}, {}), tasks, task, 1, torch.Generator())
    with pytest.raises(BadField, match="the same"):
        targets_of(tasks, torch.ones(10, 2))
    with pytest.raises(BadField, match="tasks is 10"):
        ProbePlan(tasks=10)


def test_a_run_is_probed(tmp_path: Path) -> None:
    run = create_run(TINY, tmp_path, "run")
    run_quietly(TINY, run)
    record = probe_run(run, ProbePlan(tasks=40, steps=1), console=QUIET)
    assert record == json.loads((run / "probe.json").read_text())
    assert (run / "probe.png").stat().st_size > 5000
    assert record["when"] == [0, 1]
    assert set(record["parameters"]) == set(best_first(record)) == {"goal x", "goal y"}
    assert record["parameters"]["goal x"]["curve"][0]["value"] == pytest.approx(0.0, abs=0.2)
    again = probe_run(run, ProbePlan(tasks=40, steps=1), console=QUIET)
    assert again == record
    assert (run / "probe-2.json").exists()
