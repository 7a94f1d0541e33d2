"""The experiment on what a success rate is worth: a policy of one fixed point solves the goals that are there."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

from metarl.envs.registry import find_preset
from metarl.evaluate import meta_test

FILE = Path(__file__).parents[2] / "experiments" / "what_success_measures.py"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    spec = spec_from_file_location("experiment_what_success_measures", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fixed_point_is_reached_wherever_the_goal_is(experiment: ModuleType) -> None:
    """Goals at the point and 10 cm beside it; greedy episodes of one task are equal, as resets have no noise, so that
    Meta-World's three episodes from copies of a memory are one."""
    task = find_preset("ml1", horizon=60)
    goals = task.test_goals["reach-v3"][:2].clone()
    goals[:, experiment.GOAL] = torch.tensor([[0.0, 0.85, 0.18], [0.1, 0.85, 0.18]])
    point = experiment.FixedPoint((0.0, 0.85, 0.18), carries=False, noise=1.0)
    found = meta_test(point, None, task.make(2, 3, seed=0), goals, greedy=True, seed=0)
    assert found.solved_at_end[:, 0].tolist() == [[True] * 3, [False] * 3]
    assert torch.equal(found.returns, found.returns[..., :1].expand_as(found.returns))
    noisy = meta_test(point, None, task.make(2, 3, seed=0), goals, seed=0)
    assert noisy.returns.std(-1).min() > 0, "noise tells the episodes apart"


def test_an_object_is_gripped_from_above_and_carried(experiment: ModuleType) -> None:
    point = experiment.FixedPoint((0.0, 0.85, 0.02), carries=True, noise=0.0)
    obj = [0.05, 0.65, 0.02]
    far, above, around, gripped = ([0.0, 0.6, 0.2, 1.0], [0.05, 0.65, 0.12, 1.0], [0.05, 0.65, 0.04, 1.0], None)
    gripped = [*around[:3], 0.6]
    obs = torch.tensor([[*hand, *obj] for hand in (far, above, around, gripped)])
    mean = point.dist(obs).mean
    expected = [[0.5, 0.5, -0.3, -1.0], [0.0, 0.0, -0.8, -1.0], [0.0, 0.0, 0.0, 1.0], [-0.5, 1.0, -0.2, 1.0]]
    torch.testing.assert_close(mean, torch.tensor(expected))


def test_rows_are_measured_as_evaluate_measures(experiment: ModuleType) -> None:
    row = experiment.rows("push-v3", 2)["untrained, sampled"]
    short = row._replace(task=find_preset("ml1", horizon=5, env="push-v3", standardize=True))
    found = experiment.measured(short, 2, 1)
    assert list(found) == list(experiment.MEASURES)
    assert all(len(values) == 2 for values in found.values())
    assert found["any"] == found["at the end"] == [0.0, 0.0]
    assert found["return"][0] != found["return"][1] > 0
