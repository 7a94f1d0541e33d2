"""The linear feature baseline against least squares by other means."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.networks.values import LinearFeatureBaseline

NUM_TASKS, NUM_ENVS, NUM_STEPS, OBS_DIM = 3, 4, 25, 2


def experience(seed: int = 0) -> tuple[LinearFeatureBaseline, Tensor, Tensor, Tensor]:
    """Baseline, features, targets and which steps are valid, of tasks on different scales."""
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_TASKS, NUM_ENVS, NUM_STEPS)
    obs = 2 * torch.randn(*shape, OBS_DIM, generator=generator)
    scale = torch.tensor([1.0, 10.0, -100.0], dtype=torch.float64).view(-1, 1, 1)
    target = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    valid = torch.rand(shape, generator=generator) < 0.8
    baseline = LinearFeatureBaseline()
    return baseline, baseline.features(obs, torch.arange(NUM_STEPS).expand(shape)), target, valid


def least_squares(features: Tensor, target: Tensor, valid: Tensor, regularization: float) -> np.ndarray:
    """min |X w - y|^2 + reg |w|^2 of one task, as the least squares of [X; sqrt(reg) I] against [y; 0]."""
    x, y = features[valid].numpy(), target[valid].numpy()
    rows = np.concatenate([x, math.sqrt(regularization) * np.eye(x.shape[1])])
    return np.linalg.lstsq(rows, np.concatenate([y, np.zeros(x.shape[1])]), rcond=None)[0]


def test_the_features_are_those_of_the_paper():
    """o clipped to 10, o^2, t/100, its square and cube, 1; at t = 50: .5, .25, .125."""
    obs = torch.tensor([[[3.0, -40.0]]])
    features = LinearFeatureBaseline().features(obs, torch.tensor([[50]]))
    assert features.dtype == torch.float64
    assert features.tolist() == [[[3.0, -10.0, 9.0, 100.0, 0.5, 0.25, 0.125, 1.0]]]


def test_the_coefficients_of_each_task_are_its_ridge_solution():
    baseline, features, target, valid = experience()
    coefficients = baseline.fit(features, target, valid)
    assert coefficients.shape == (NUM_TASKS, 2 * OBS_DIM + 4)
    for task in range(NUM_TASKS):
        expected = least_squares(features[task], target[task], valid[task], 1e-5)
        found = coefficients[task].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-7)
        other = least_squares(features[task], target[task], valid[task], 1.0)  # negative control: another penalty
        assert np.abs(found - other).max() > 1e-3 * np.abs(other).max()


def test_a_task_is_fitted_as_if_it_were_alone():
    """One solve for all of them, and nothing of one task in another; one task needs no task axis."""
    baseline, features, target, valid = experience()
    together = baseline.fit(features, target, valid)
    for task in range(NUM_TASKS):
        alone = baseline.fit(features[task], target[task], valid[task])
        torch.testing.assert_close(together[task], alone, rtol=1e-10, atol=0)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_what_is_linear_in_the_features_is_predicted_exactly():
    """The fit is float64, so only ``predict``'s float32 and the small ridge are between target and
    prediction.
    """
    baseline, features, _, valid = experience()
    weights = torch.tensor([1.0, -2.0, 0.5, 0.3, 4.0, -3.0, 2.0, 7.0], dtype=torch.float64)
    target = features @ weights
    predicted = baseline.predict(baseline.fit(features, target, valid), features)
    torch.testing.assert_close(predicted.double(), target, rtol=1e-3, atol=1e-3)
    assert target.std() > 1  # negative control: a constant would not do


def test_features_without_variation_still_have_a_solution():
    """All observations and clocks 0: the Gram matrix has rank one, the ridge makes it regular, and the
    prediction is the mean: N y / (N + 1e-5).
    """
    baseline = LinearFeatureBaseline()
    features = baseline.features(torch.zeros(1, 2, 3, OBS_DIM), torch.zeros(1, 2, 3, dtype=torch.int64))
    target = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]]])
    coefficients = baseline.fit(features, target, torch.ones(1, 2, 3, dtype=torch.bool))
    torch.testing.assert_close(baseline.predict(coefficients, features), torch.full((1, 2, 3), 4.0), rtol=1e-5, atol=0)


def test_collinear_features_are_solved_and_predict_the_same():
    """Both observations equal: infinitely many solutions of least squares, one of them ridge's."""
    baseline, features, _, valid = experience()
    obs = features[..., :1].expand(-1, -1, -1, 2).float()
    twice = baseline.features(obs, torch.arange(NUM_STEPS).expand(obs.shape[:-1]))
    target = 3 * twice[..., 0] + 1
    coefficients = baseline.fit(twice, target, valid)
    assert coefficients.isfinite().all()
    torch.testing.assert_close(baseline.predict(coefficients, twice).double(), target, rtol=1e-3, atol=1e-3)


def test_invalid_steps_do_not_influence_the_fit():
    baseline, features, target, valid = experience()
    coefficients = baseline.fit(features, target, valid)
    soiled = target.masked_fill(~valid, 1e6)
    other = features.masked_fill(~valid.unsqueeze(-1), -7.0)
    torch.testing.assert_close(baseline.fit(other, soiled, valid), coefficients, rtol=1e-8, atol=1e-10)
    everything = baseline.fit(features, soiled, torch.ones_like(valid))  # negative control
    assert (everything - coefficients).abs().max() > 1.0


def test_a_task_without_valid_steps_predicts_zero():
    baseline, features, target, valid = experience()
    valid = valid.clone()
    valid[1] = False
    coefficients = baseline.fit(features, target, valid)
    assert (coefficients[1] == 0).all()
    assert (coefficients[0] != 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("where", ["rewards", "observations"])
def test_what_is_not_finite_raises_and_says_where_to_look(where: str, bad: float):
    baseline, features, target, valid = experience()
    {"rewards": target, "observations": features}[where][1, 0, 0] = bad
    with pytest.raises(FloatingPointError, match="reward"):
        baseline.fit(features, target, torch.ones_like(valid))


@pytest.mark.parametrize("regularization", [0.0, -1e-5])
def test_a_penalty_that_cannot_regularize_is_refused(regularization: float):
    """Ten times 0 is 0: where the solve fails, the retries would never end."""
    with pytest.raises(ValueError, match="regularization"):
        LinearFeatureBaseline(regularization=regularization)
