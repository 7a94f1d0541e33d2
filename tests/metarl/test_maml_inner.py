"""MAML's inner step, and the credit that it gets."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from maml_checks import LEARNERS, NUM_TASKS, SPEC, meta_batch, relative_error
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metarl.algorithms.maml import MAML, MAMLState
from metarl.algorithms.meta_gradient import LEARNED_RATE, MAMLProblem
from metarl.losses.advantages import normalize
from metarl.losses.optim import flatten
from metarl.losses.policy_gradient import log_likelihood_loss, ratio_loss
from metarl.networks.distributions import DiagGaussian
from metarl.networks.mlp import GaussianMLP
from metarl.networks.values import LinearFeatureBaseline
from metarl.types import TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the inner step at test time


@pytest.mark.parametrize("name", LEARNERS)
def test_adapting_at_test_time_is_the_step_that_the_meta_gradient_differentiates(name: str):
    learner = replace(LEARNERS[name], adapt_steps=2)
    meta, batches = meta_batch(learner)
    state = MAMLState(meta, {})
    actor = learner.actor(state, NUM_TASKS)
    for batch in batches[:2]:
        actor = learner.adapt(state, actor, batch)
    phi = vmap(lambda batches: learner.adapted(meta, batches))(batches[:2])
    assert actor.keys() == phi.keys()
    for key in phi:
        torch.testing.assert_close(actor[key], phi[key], rtol=1e-12, atol=1e-15)
    assert relative_error(actor["log_std"][0], actor["log_std"][1]) > 1e-4, "the tasks did not adapt apart"


def test_half_the_scale_is_half_the_step():
    learner = LEARNERS["learned rates"]
    meta, (pre, _) = meta_batch(learner)
    state = MAMLState(meta, {})
    theta = learner.actor(state, NUM_TASKS)
    whole, half = learner.adapt(state, theta, pre), learner.adapt(state, theta, pre, scale=0.5)
    for name in theta:
        assert not torch.equal(whole[name], theta[name])
        torch.testing.assert_close(half[name] - theta[name], (whole[name] - theta[name]) / 2)


def test_adaptation_descends_the_inner_loss_of_each_task():
    learner = MAML(policy=GaussianMLP((3, 3), "tanh"), inner_lr=1e-3)
    meta, (pre, _) = meta_batch(learner)
    state = MAMLState(meta, {})
    theta = learner.actor(state, NUM_TASKS)
    phi = learner.adapt(state, theta, pre)
    loss = vmap(lambda params, batch: log_likelihood_loss(learner.policy, params, batch))
    assert (loss(phi, pre) < loss(theta, pre)).all()
    strangers = tree_map(lambda x: x.roll(1, 0), phi)  # negative control: the step of another task
    assert not (loss(strangers, pre) < loss(theta, pre)).all()


# --- credit


NO_STATE = MAMLState({}, {})  # the baseline is fitted to the batch alone


def episodes_batch(*, reward: Tensor, terminated: Tensor, truncated: Tensor, valid: Tensor, obs: Tensor):
    """Experience to be credited, float32 as an environment's."""
    dist = DiagGaussian(torch.zeros_like(obs), torch.zeros_like(obs))
    ended = terminated | truncated
    clock = torch.zeros(reward.shape, dtype=torch.int64)
    for t in range(1, reward.shape[-1]):
        clock[..., t] = torch.where(ended[..., t - 1], 0, clock[..., t - 1] + 1)
    zeros = torch.zeros_like(reward)
    return TrajectoryBatch(
        obs=obs,
        action=torch.zeros_like(obs),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        clock=clock,
        success=torch.zeros_like(terminated),
        valid=valid,
        log_prob=zeros,
        dist=dist,
        next_obs=obs.roll(-1, 2),
        advantage=zeros,
        target=zeros,
    )


def two_episodes_then_idle() -> TrajectoryBatch:
    """1 task, 3 worlds, 8 steps: 3 that terminate, 3 that hit the time limit, 2 idle ones."""
    generator = torch.Generator().manual_seed(3)
    shape = (1, 3, 8)
    terminated, truncated = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    terminated[..., 2], truncated[..., 5] = True, True
    valid = torch.ones(shape, dtype=torch.bool)
    valid[..., 6:] = False
    return episodes_batch(
        reward=torch.rand(shape, generator=generator),
        terminated=terminated,
        truncated=truncated,
        valid=valid,
        obs=torch.randn(*shape, 2, generator=generator),
    )


@pytest.mark.parametrize("garbage", [1e6, math.nan], ids=str)
def test_idle_steps_have_no_part_in_the_credit(garbage: float):
    learner = MAML(discount=0.9, gae_lambda=0.8)
    batch = two_episodes_then_idle()
    idle = ~batch.valid
    soiled = batch._replace(
        reward=batch.reward.masked_fill(idle, garbage),
        obs=batch.obs.masked_fill(idle.unsqueeze(-1), garbage),
        next_obs=batch.next_obs.masked_fill(idle.unsqueeze(-1), garbage),
    )
    clean, credited = learner.credit(NO_STATE, batch), learner.credit(NO_STATE, soiled)
    assert torch.equal(clean.advantage[batch.valid], credited.advantage[batch.valid])
    assert torch.equal(clean.target[batch.valid], credited.target[batch.valid])
    assert (credited.advantage[idle] == 0).all()


def test_a_valid_step_has_a_part_in_the_credit():
    """Negative control of the test above."""
    batch = two_episodes_then_idle()
    reward = batch.reward.clone()
    reward[0, 0, 4] += 1
    changed = MAML().credit(NO_STATE, batch._replace(reward=reward))
    assert (changed.advantage - MAML().credit(NO_STATE, batch).advantage).abs().max() > 0.1


@pytest.mark.parametrize("garbage", [1e6, math.nan], ids=str)
def test_the_step_in_which_the_physics_failed_has_no_part_in_the_credit(garbage: float):
    """The environment marks that step truncated and invalid; the steps before it are valid and must not
    hear of its reward, nor of the observation it led to.
    """
    learner, batch = MAML(discount=0.9, gae_lambda=0.8), two_episodes_then_idle()
    failed = torch.zeros_like(batch.valid)
    failed[0, 0, 5] = True
    batch = batch._replace(valid=batch.valid & ~failed, reward=batch.reward.masked_fill(failed, 0.0))
    soiled = batch._replace(
        reward=batch.reward.masked_fill(failed, garbage),
        next_obs=batch.next_obs.masked_fill(failed.unsqueeze(-1), garbage),
    )
    clean, credited = learner.credit(NO_STATE, batch), learner.credit(NO_STATE, soiled)
    assert torch.equal(clean.advantage[batch.valid], credited.advantage[batch.valid])
    assert torch.equal(clean.target[batch.valid], credited.target[batch.valid])


def test_invalid_steps_have_no_part_in_the_losses():
    learner = LEARNERS["two tanh layers"]
    meta, batches = meta_batch(learner)
    soiled = [
        batch._replace(
            action=batch.action.masked_fill(~batch.valid.unsqueeze(-1), 1e6),
            advantage=batch.advantage.masked_fill(~batch.valid, 1e6),
        )
        for batch in batches
    ]
    clean, loss = MAMLProblem(learner, batches).gradient(meta, log_likelihood_loss)
    gradient, loss_soiled = MAMLProblem(learner, soiled).gradient(meta, log_likelihood_loss)
    assert loss_soiled == loss
    assert torch.equal(flatten(gradient), flatten(clean))


@dataclass(frozen=True)
class ReadsTheValueOffTheObservation(LinearFeatureBaseline):
    """V(s) = the first number of the observation, fitted to nothing."""

    def fit(self, features: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return torch.zeros(features.shape[0], features.shape[-1], dtype=features.dtype)

    def predict(self, coefficients: Tensor, features: Tensor) -> Tensor:
        return features[..., 0].float()


def test_the_credit_is_the_hand_computed_one():
    """One world, two episodes of two steps, gamma = .5, lambda = .5. Values 1 2 | 3 4; the first episode
    hits the time limit, the second terminates: nothing follows, and never the 3 of the next episode.

    t   delta                                  advantage
    0   1 + .5*2 - 1 = 1                       1 + .25 * A_1
    1   2 - 2 = 0                              0
    2   3 + .5*4 - 3 = 2                       2 + .25 * (-4) = 1
    3   0 - 4 = -4                             -4
    """
    value = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    led_to = torch.tensor([[[2.0, 8.0, 4.0, 6.0]]])
    never = torch.zeros(1, 1, 4, dtype=torch.bool)
    truncated, terminated = never.clone(), never.clone()
    truncated[..., 1], terminated[..., 3] = True, True
    batch = episodes_batch(
        reward=torch.tensor([[[1.0, 2.0, 3.0, 0.0]]]),
        terminated=terminated,
        truncated=truncated,
        valid=~never,
        obs=value.unsqueeze(-1),
    )._replace(next_obs=led_to.unsqueeze(-1))
    learner = MAML(baseline=ReadsTheValueOffTheObservation(), discount=0.5, gae_lambda=0.5)
    credited = learner.credit(NO_STATE, batch)
    by_hand = torch.tensor([[[1.0, 0.0, 1.0, -4.0]]])
    torch.testing.assert_close(credited.advantage, normalize(by_hand, batch.valid))
    # over the variance: mean -1/2, squared deviations 9/4, 1/4, 9/4, 49/4
    over_variance = replace(learner, advantage_scale="variance").credit(NO_STATE, batch).advantage
    torch.testing.assert_close(over_variance, torch.tensor([[[1.5, 0.5, 1.5, -3.5]]]) / 4.25)
    # returns: 1 + .5 * 2, 2 | 3 + .5 * 0, 0
    torch.testing.assert_close(credited.target, torch.tensor([[[2.0, 2.0, 3.0, 0.0]]]))


def test_each_task_has_its_own_baseline_and_its_own_scale():
    """reward -> c_i reward + k_i leaves the normalized advantage of task i alone: constant and scale are the
    baseline's and the normalization's, task by task. Across tasks a joint normalization would move both."""
    batch = two_episodes_then_idle()
    both = tree_map(lambda x: torch.cat([x, x]), batch)
    reward = both.reward.clone()
    reward[1] = 10 * reward[1]
    credited = MAML(discount=1.0).credit(NO_STATE, both._replace(reward=reward)).advantage
    torch.testing.assert_close(credited[0], credited[1], rtol=1e-3, atol=1e-4)
    alone = MAML(discount=1.0).credit(NO_STATE, batch).advantage
    torch.testing.assert_close(credited[:1], alone, rtol=1e-3, atol=1e-4)
    jointly = normalize(reward.flatten(0, 1).unsqueeze(0), both.valid.flatten(0, 1).unsqueeze(0))
    apart = jointly.unflatten(1, (2, 3))[0]
    assert (apart[0] - apart[1]).abs().max() > 0.1  # negative control


def test_nothing_valid_is_nothing_learned_and_no_division_by_zero():
    learner = LEARNERS["linear"]
    meta, batches = meta_batch(learner)
    empty = [batch._replace(valid=torch.zeros_like(batch.valid)) for batch in batches]
    gradient, loss = MAMLProblem(learner, empty).gradient(meta, ratio_loss)
    assert loss == 0.0
    assert not flatten(gradient).any()


@pytest.mark.parametrize(
    "options",
    [{"adapt_steps": -1}, {"inner_lr": 0.0}, {"chunk_samples": 0}, {"discount": 1.1}, {"gae_lambda": -0.1}],
    ids=str,
)
def test_hyperparameters_without_a_meaning_are_refused_by_name(options: dict):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        MAML(**options)


def test_learned_rates_start_at_the_configured_one():
    learner = MAML(policy=GaussianMLP((3,)), inner_lr=0.07, learn_inner_lr=True)
    meta = learner.init(SPEC, torch.Generator().manual_seed(0)).meta
    rates = {name: value for name, value in meta.items() if name.startswith(LEARNED_RATE)}
    assert {name.removeprefix(LEARNED_RATE) for name in rates} == meta.keys() - rates.keys()
    assert all((rate == torch.tensor(0.07)).all() for rate in rates.values())
    assert all(rate.shape == meta[name.removeprefix(LEARNED_RATE)].shape for name, rate in rates.items())
