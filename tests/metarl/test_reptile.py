"""Reptile against closed forms."""

import math

import pytest
import torch
from maml_checks import NUM_TASKS, meta_batch
from test_meta_gradient import LinearPolicy, TwoLayerPolicy, make_batch, real
from torch import Tensor
from torch.func import grad, vmap
from update_checks import meta_update

from metarl.algorithms.reptile import Reptile, ReptileState
from metarl.losses.optim import flatten
from metarl.losses.policy_gradient import log_likelihood_loss
from metarl.networks.mlp import GaussianMLP
from metarl.types import Params, TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")


def test_one_inner_step_moves_along_the_mean_inner_gradient():
    learner = Reptile(policy=GaussianMLP((3,), "tanh"), adapt_steps=0, inner_lr=0.3, step_size=0.5)
    meta, (batch,) = meta_batch(learner)
    after, metrics = meta_update(learner, ReptileState(meta), [batch])
    gradients = vmap(lambda batch: grad(log_likelihood_loss, argnums=1)(learner.policy, meta, batch))(batch)
    for name in meta:
        expected = meta[name] - 0.5 * 0.3 * gradients[name].mean(0)
        torch.testing.assert_close(after.meta[name], expected, rtol=1e-12, atol=1e-15)
    assert metrics["train/meta_gradient_norm"] == pytest.approx(
        0.3 * math.sqrt(sum(g.mean(0).square().sum().item() for g in gradients.values()))
    )


GOALS = real([0.3, -1.1, 2.0])


class Point(LinearPolicy):
    """N(theta, 1): an action at the goal with advantage 1 makes the inner loss (theta - goal)^2 / 2."""

    def __call__(self, params: Params, obs: Tensor):
        return super().__call__(params | {"idle": torch.zeros(1, dtype=obs.dtype)}, obs)


def quadratic_batch() -> TrajectoryBatch:
    action = GOALS.view(-1, 1, 1, 1)
    obs = torch.ones_like(action)
    return make_batch(Point(), {"theta": real([0.0])}, obs, action, torch.ones_like(action).squeeze(-1))


@pytest.mark.parametrize("adapt_steps", [0, 1, 4])
@pytest.mark.parametrize("step_size", [0.25, 1.0])
def test_theta_goes_to_the_mean_goal_at_the_closed_forms_pace(adapt_steps: int, step_size: float):
    """theta_m = gbar + (1 - eps (1 - (1 - alpha)^n))^m (theta_0 - gbar), n = adapt_steps + 1 inner steps."""
    alpha, num_updates = 0.1, 6
    learner = Reptile(policy=Point(), adapt_steps=adapt_steps, inner_lr=alpha, step_size=step_size)
    state = ReptileState({"theta": real([5.0]), "log_std": real([0.0])})
    for _ in range(num_updates):
        state, _ = meta_update(learner, state, [quadratic_batch()] * (adapt_steps + 1))
    pace = 1 - step_size * (1 - (1 - alpha) ** (adapt_steps + 1))
    center = GOALS.mean().item()
    assert state.meta["theta"].item() == pytest.approx(center + pace**num_updates * (5.0 - center), rel=1e-12)


def test_after_one_step_the_two_layer_toy_has_not_moved_its_first_layer():
    """mu = u v with v = 0: MAML's gradient in u is -2 alpha u (1 - alpha u^2) g^2, Reptile's 0 (v' = alpha u g)."""
    meta = {"u": real([1.3]), "v": real([0.0]), "log_std": real([0.0])}
    obs = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    batch = make_batch(TwoLayerPolicy(), meta, obs, torch.full_like(obs, 0.8), torch.ones_like(obs).squeeze(-1))
    state, _ = meta_update(Reptile(policy=TwoLayerPolicy(), adapt_steps=0, inner_lr=0.2), ReptileState(meta), [batch])
    assert state.meta["u"].item() == 1.3
    assert state.meta["v"].item() == pytest.approx(0.2 * 1.3 * 0.8, rel=1e-12)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted():
    learner = Reptile(policy=GaussianMLP((3,), "tanh"), adapt_steps=1)
    meta, batches = meta_batch(learner)
    broken = batches[0]._replace(advantage=torch.full_like(batches[0].advantage, math.nan))
    state, metrics = meta_update(learner, ReptileState(meta), [broken, batches[1]])
    assert metrics["train/skipped_updates"] == 1.0
    assert torch.equal(flatten(state.meta), flatten(meta))
    assert len(learner.actor(state, NUM_TASKS)["log_std"]) == NUM_TASKS


def test_a_step_of_no_length_is_refused():
    with pytest.raises(ValueError, match="step_size"):
        Reptile(step_size=0.0)
