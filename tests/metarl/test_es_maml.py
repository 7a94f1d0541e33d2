"""ES-MAML: the smoothed gradient by quadrature, and that every perturbed policy keeps to its own worlds."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from maml_checks import NUM_STEPS, SPEC
from test_meta_gradient import BANDITS, Bandit, real
from torch.utils._pytree import tree_map
from update_checks import meta_update

from metarl.algorithms.es_maml import ESMAML, ESMAMLState, smoothed_gradient
from metarl.envs.small.navigation import Navigation
from metarl.networks.mlp import GaussianMLP
from metarl.rollout import rollout
from metarl.types import Params, Previous

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_TASKS, NUM_ENVS, PAIRS = 3, 8, 2
LEARNER = ESMAML(policy=GaussianMLP((4,), "tanh"), pairs=PAIRS, perturbation=0.3)


def explorer_of(state: ESMAMLState) -> Params:
    """The perturbed policies of a meta-batch."""
    return LEARNER.explorer(state, NUM_TASKS, torch.Generator().manual_seed(5))


def initial_state(learner: ESMAML = LEARNER) -> ESMAMLState:
    return learner.init(SPEC, torch.Generator().manual_seed(0))


# --- the gradient ----------------------------------------------------------------------------------


def return_after_adaptation(bandit: Bandit, theta: np.ndarray) -> np.ndarray:
    """V(theta) of the Gaussian bandit: -((1 - alpha)^2 d^2 + alpha^2 / K Var G + s^2) / 2, a polynomial of d."""
    d, s, alpha = theta - bandit.goal, bandit.std, bandit.alpha
    a = -(d**2 / 2 + bandit.b) / s
    variance = a**2 - 3 * a * s + 15 * s**2 / 4 + 2 * d**2
    return -((1 - alpha) ** 2 * d**2 + alpha**2 / bandit.num_samples * variance + s**2) / 2


@pytest.mark.parametrize("bandit", [bandit for bandit in BANDITS if bandit.baseline is not None])
@pytest.mark.parametrize("sigma", [0.05, 0.6])
def test_it_is_the_derivative_of_the_smoothed_return_after_adaptation(bandit: Bandit, sigma: float):
    """E_g V'(theta + sigma g), V' the closed form of test_meta_gradient. Gauss-Hermite nodes are the perturbations."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    shifted = [bandit._replace(theta=bandit.theta + sigma * g).exact() for g in nodes]
    expected = float(np.dot(weights, shifted))
    earned = np.stack([return_after_adaptation(bandit, bandit.theta + sign * sigma * nodes) for sign in (1, -1)], 0)
    found = smoothed_gradient({"theta": real(nodes).view(1, -1, 1)}, real(earned * weights * 8).unsqueeze(0), sigma)
    assert found["theta"].item() == pytest.approx(expected, rel=1e-10)
    if sigma > 0.5:  # the smoothing is visible
        assert abs(expected - bandit.exact()) > 1e-5 * abs(expected)


def test_an_update_climbs_along_it():
    """Adam's first step is its sign; the noise that explored is the noise that is credited."""
    state = initial_state()
    explorer = explorer_of(state)
    noise = LEARNER.noise(explorer)
    batch = batches(LEARNER, state, explorer)[-1]
    after, metrics = meta_update(LEARNER, state, [batch], explorer=explorer)
    earned = batch.reward.sum(-1).view(NUM_TASKS, 2, PAIRS, -1).mean(-1)
    for name, theta in state.meta.items():
        slope = torch.zeros_like(theta)
        for task in range(NUM_TASKS):
            for pair in range(PAIRS):
                slope += (earned[task, 0, pair] - earned[task, 1, pair]) / (2 * 0.3) * noise[name][task, pair]
        torch.testing.assert_close((after.meta[name] - theta).sign(), slope.sign())
    assert metrics["train/meta_gradient_norm"] > 0


# --- who acts where --------------------------------------------------------------------------------


def batches(learner: ESMAML, state: ESMAMLState, actor: Params) -> list[Any]:
    """What training collects: the perturbed policies' experience before and after an inner step."""
    env = Navigation(horizon=NUM_STEPS).make(NUM_TASKS, NUM_ENVS, seed=1)
    env.set_tasks(Navigation().sample(NUM_TASKS, torch.Generator().manual_seed(2)))
    generator = torch.Generator().manual_seed(3)
    found = []
    for step in range(learner.adapt_steps + 1):
        batch, actor = rollout(env, learner.act, actor, 1, generator)
        found.append(learner.credit(state, batch))
        if step < learner.adapt_steps:
            actor = learner.adapt(state, actor, found[-1])
    return found


def test_perturbations_come_in_pairs_around_theta_and_anew_with_each_update():
    state = initial_state()
    draws = torch.Generator().manual_seed(5)
    actor = LEARNER.explorer(state, NUM_TASKS, draws)
    noise = LEARNER.noise(actor)
    for name, theta in state.meta.items():
        plus, minus = actor[name][:, :PAIRS], actor[name][:, PAIRS:]
        torch.testing.assert_close((plus + minus) / 2, theta.expand_as(plus))
        torch.testing.assert_close(plus - minus, 2 * 0.3 * noise[name])
    drawn = torch.randn(noise["weight_0"].shape, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(noise["weight_0"], drawn, rtol=0, atol=1e-5)  # up to the rounding of theta + sigma g
    assert not torch.allclose(LEARNER.noise(LEARNER.explorer(state, NUM_TASKS, draws))["weight_0"], drawn, atol=0.1)
    assert len(noise["weight_0"].flatten().unique()) == noise["weight_0"].numel()
    tested = LEARNER.actor(state, NUM_TASKS)
    for name, theta in state.meta.items():
        assert torch.equal(tested[name][:, 0], theta.expand(NUM_TASKS, *theta.shape))


def test_each_world_is_played_by_its_own_policy():
    state = initial_state()
    actor = explorer_of(state)
    obs = torch.randn(NUM_TASKS, NUM_ENVS, SPEC.obs_dim, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(NUM_TASKS, NUM_ENVS, dtype=torch.bool)
    previous = Previous(torch.zeros(NUM_TASKS, NUM_ENVS, SPEC.action_dim), nothing.float(), nothing, nothing, obs)
    _, dist, _ = LEARNER.act(actor, obs, previous, torch.Generator())
    for task in range(NUM_TASKS):
        for env in range(NUM_ENVS):
            own = {name: value[task, env // (NUM_ENVS // (2 * PAIRS))] for name, value in actor.items()}
            expected = LEARNER.policy(own, obs[task, env].unsqueeze(0))
            torch.testing.assert_close(dist.mean[task, env], expected.mean[0])
            torch.testing.assert_close(dist.log_std[task, env], own["log_std"])


def test_each_policy_adapts_on_its_own_worlds_alone():
    state = initial_state()
    actor = explorer_of(state)
    pre, _ = batches(LEARNER, state, actor)
    other = pre.reward.clone()
    other[1, :2] += torch.arange(NUM_STEPS)  # in the worlds of the second task's first policy
    phi = LEARNER.adapt(state, actor, LEARNER.credit(state, pre))
    changed = LEARNER.adapt(state, actor, LEARNER.credit(state, pre._replace(reward=other)))
    same = (phi["weight_0"] == changed["weight_0"]).flatten(2).all(-1)
    assert same.tolist() == [[True] * 4, [False, True, True, True], [True] * 4]


def test_in_tests_one_policy_plays_all_worlds():
    state = initial_state()
    env = Navigation(horizon=NUM_STEPS).make(NUM_TASKS, 5, seed=1)
    batch, actor = rollout(env, LEARNER.act, LEARNER.actor(state, NUM_TASKS), 1, torch.Generator())
    phi = LEARNER.adapt(state, actor, LEARNER.credit(state, batch))
    assert phi["log_std"].shape == (NUM_TASKS, 1, SPEC.action_dim)
    with pytest.raises(ValueError, match="num_envs is 5: use a multiple"):
        rollout(env, LEARNER.act, explorer_of(state), 1, torch.Generator())


def test_returns_that_are_not_finite_change_nothing():
    state = initial_state()
    explorer = explorer_of(state)
    post = batches(LEARNER, state, explorer)[-1]
    broken = [post._replace(reward=torch.full_like(post.reward, math.nan))]
    after, metrics = meta_update(LEARNER, state, broken, explorer=explorer)
    assert metrics["train/skipped_updates"] == 1.0
    assert after is state


def test_it_learns_to_adapt_and_the_reverse_of_the_returns_teaches_the_reverse():
    """Navigation with episodes of 8 steps, by returns alone. A pilot with seeds 0, 1, 2 rose by .38, .70 and .61, and
    fell by 1.9 on negated returns.
    """
    learner = replace(LEARNER, perturbation=0.1, learning_rate=0.06, inner_lr=0.3)
    task = Navigation(horizon=8)
    gains = []
    for sign in (1, -1):
        env = task.make(20, 16, seed=1)
        state = learner.init(env.spec, torch.Generator().manual_seed(0))
        draws, generator, earned = torch.Generator().manual_seed(2), torch.Generator().manual_seed(3), []
        for _ in range(40):
            env.set_tasks(task.sample(20, draws))
            actor = learner.explorer(state, 20, draws)
            pre, _ = rollout(env, learner.act, actor, 1, generator)
            phi = learner.adapt(state, actor, learner.credit(state, pre))
            post, _ = rollout(env, learner.act, phi, 1, generator)
            state, _ = meta_update(learner, state, [pre, post._replace(reward=sign * post.reward)], explorer=actor)
            earned.append(post.reward.where(post.valid, 0.0).sum(-1).mean().item())
        gains.append(sum(earned[-10:]) / 10 - sum(earned[:5]) / 5)
    assert gains[0] > 0.2
    assert gains[1] < -0.5


@pytest.mark.parametrize("name", ["learning_rate", "perturbation", "pairs"])
def test_hyperparameters_without_a_meaning_are_refused_by_name(name: str):
    with pytest.raises(ValueError, match=name):
        ESMAML(**{name: 0 if name == "pairs" else 0.0})


def test_the_state_is_data():
    state = initial_state()
    leaves: list[Any] = []
    tree_map(leaves.append, state._asdict())
    assert all(isinstance(leaf, torch.Tensor | int) for leaf in leaves)
