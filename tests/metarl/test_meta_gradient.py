"""The meta-gradient against closed forms on problems small enough to integrate exactly.

The one-step Gaussian bandit: an action a ~ N(theta, s^2) earns r = -(a - g)^2 / 2. With d = theta - g,

    J(theta) = E r = -(d^2 + s^2) / 2,    J' = -d,    J'' = -1.

The inner step with K samples a_k = theta + s e_k and a constant baseline b is

    theta' = theta + (alpha / K) sum_k (e_k / s) (r_k - b),

a polynomial of the noises e_k, and so is its derivative. Gauss-Hermite nodes integrate polynomials exactly:
each point of the grid of nodes is one *task* of the production code, weighted by its product weight, and
what ``MAMLProblem.gradient`` returns must equal the closed form to rounding, not within an error bar.
"""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from metarl.algorithms.gradient import adapt
from metarl.algorithms.maml import MAML, MAMLState
from metarl.algorithms.meta_gradient import LEARNED_RATE, MAMLProblem
from metarl.algorithms.promp import ProMP, ProMPState
from metarl.losses.policy_gradient import log_likelihood_loss, mean_kl, ratio_loss
from metarl.networks.distributions import DiagGaussian
from metarl.networks.mlp import GaussianMLP
from metarl.networks.values import LinearFeatureBaseline
from metarl.types import Params, TrajectoryBatch

NUM_NODES = 8  # exact up to degree 15 in each noise; the integrands here have degree 5


pytestmark = pytest.mark.usefixtures("one_thread")


class Bandit(NamedTuple):
    """One bandit and the inner step on it; ``baseline`` None stands for b = E r."""

    theta: float
    goal: float
    std: float
    alpha: float
    num_samples: int
    baseline: float | None

    @property
    def d(self) -> float:
        return self.theta - self.goal

    @property
    def b(self) -> float:
        return -(self.d**2 + self.std**2) / 2 if self.baseline is None else self.baseline

    @property
    def a_over_s(self) -> float:
        """A / s with A = -(d^2 / 2 + b) / s; 1/2 where b = E r."""
        return -(self.d**2 / 2 + self.b) / self.std**2

    def vanilla(self) -> float:
        """MAML as published for RL: log-likelihood inner loss, the samples held fixed."""
        noise = self.alpha**2 * self.d / self.num_samples * (5 / 2 - self.a_over_s)
        return -(1 - self.alpha) * self.d * (1 - self.alpha * (self.a_over_s - 1 / 2)) + noise

    def exact(self) -> float:
        """The derivative of E J(theta'), which E-MAML and DiCE estimate."""
        noise = self.alpha**2 * self.d / self.num_samples * (7 / 2 - self.a_over_s)
        return -((1 - self.alpha) ** 2) * self.d - noise

    def score(self) -> float:
        """The score-function term of pre-update sampling, which MAML leaves out."""
        noise = self.alpha**2 * self.d / self.num_samples * (6 - 2 * self.a_over_s)
        return -self.alpha * (1 - self.alpha) * self.d * (self.a_over_s - 3 / 2) - noise

    def lvc(self) -> float:
        """The inner loss of ProMP: the likelihood ratio in place of the log-likelihood."""
        noise = self.alpha**2 * self.d / self.num_samples * (11 - 4 * self.a_over_s)
        return -((1 - self.alpha) ** 2) * self.d - noise

    def first_order(self) -> float:
        return -(1 - self.alpha) * self.d


BANDITS = [
    Bandit(0.7, -0.3, 0.5, 0.1, num_samples=2, baseline=0.0),
    Bandit(0.7, -0.3, 0.5, 0.1, num_samples=3, baseline=0.0),
    Bandit(-0.4, 0.9, 0.8, 0.05, num_samples=3, baseline=-0.5),
    Bandit(1.2, 0.2, 0.3, 0.2, num_samples=2, baseline=0.3),
    Bandit(0.7, -0.3, 0.5, 0.1, num_samples=2, baseline=None),
    Bandit(0.7, -0.3, 0.5, 0.1, num_samples=3, baseline=None),
]


@dataclass(frozen=True)
class BanditPolicy(GaussianMLP):
    """N(theta, s^2) whatever is observed."""

    std: float = 1.0

    def __call__(self, params: Params, obs: Tensor) -> DiagGaussian:
        mean = params["theta"] + 0 * obs
        return DiagGaussian(mean, torch.full_like(mean, math.log(self.std)))


@dataclass(frozen=True)
class LinearPolicy(GaussianMLP):
    """N(obs . theta, 1); ``idle`` is a parameter that changes nothing."""

    def __call__(self, params: Params, obs: Tensor) -> DiagGaussian:
        mean = (obs @ params["theta"]).unsqueeze(-1) + 0 * params["idle"]
        return DiagGaussian(mean, torch.zeros_like(mean))


@dataclass(frozen=True)
class TwoLayerPolicy(GaussianMLP):
    """N(u v, 1): two numbers that learn only through each other."""

    def __call__(self, params: Params, obs: Tensor) -> DiagGaussian:
        mean = params["u"] * params["v"] + 0 * obs
        return DiagGaussian(mean, torch.zeros_like(mean))


def real(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def make_batch(policy: GaussianMLP, params: Params, obs: Tensor, action: Tensor, advantage: Tensor):
    """Steps [task env 1] of ``policy``; whatever plays no role is zero."""
    dist = policy(params, obs)
    zeros = torch.zeros_like(advantage)
    never = torch.zeros_like(advantage, dtype=torch.bool)
    return TrajectoryBatch(
        obs=obs,
        action=action,
        reward=zeros,
        terminated=never,
        truncated=~never,
        clock=zeros.long(),
        success=never,
        valid=~never,
        log_prob=dist.log_prob(action),
        dist=dist,
        next_obs=obs,
        advantage=advantage,
        target=zeros,
    )


def single(batch: TrajectoryBatch) -> TrajectoryBatch:
    """The first task, without its task axis."""
    fields = {name: value[0] for name, value in batch._asdict().items() if name != "dist"}
    return TrajectoryBatch(**fields, dist=DiagGaussian(*(leaf[0] for leaf in batch.dist)))


def noise_grid(num_samples: int) -> tuple[Tensor, Tensor]:
    """Every combination of nodes [row, sample], and its weight [row]; weights sum to 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    grid = np.array(list(itertools.product(nodes, repeat=num_samples)))
    product = np.array([math.prod(row) for row in itertools.product(weights, repeat=num_samples)])
    return real(grid), real(product / product.sum())


def reward(bandit: Bandit, action: Tensor) -> Tensor:
    return -((action - bandit.goal) ** 2) / 2


def pre_update_batch(bandit: Bandit, theta: Tensor | None = None) -> TrajectoryBatch:
    """K samples of each row of the grid, one task a row, credited with r - b."""
    noise, _ = noise_grid(bandit.num_samples)
    start = real([bandit.theta])
    action = (start + bandit.std * noise)[..., None, None]  # [row, sample, time = 1, act = 1]
    advantage = reward(bandit, action).squeeze(-1) - bandit.b
    policy = BanditPolicy(std=bandit.std)
    return make_batch(policy, {"theta": start}, torch.zeros_like(action), action, advantage)


def post_update_batch(bandit: Bandit, phi: Tensor) -> TrajectoryBatch:
    """The adapted policies' actions on the nodes. The losses take an unweighted mean over steps and over
    tasks, so the advantages carry the quadrature weights: of the node times the nodes, and of the row times
    the rows.
    """
    nodes, node_weights = noise_grid(1)
    _, row_weights = noise_grid(bandit.num_samples)
    action = (phi[:, None] + bandit.std * nodes.squeeze(-1))[..., None]  # [row, node, act]
    weights = (row_weights * len(row_weights))[:, None] * (node_weights * len(node_weights))
    advantage = (weights * reward(bandit, action.squeeze(-1))).unsqueeze(-1)
    action = action.unsqueeze(-2)
    policy = BanditPolicy(std=bandit.std)
    params = {"theta": phi[:, None, None, None]}
    return make_batch(policy, params, torch.zeros_like(action), action, advantage)


def problem_of(bandit: Bandit, estimator: str) -> MAMLProblem:
    """Rollout data of every point of the grid, as the library would hold it."""
    policy, theta = BanditPolicy(std=bandit.std), {"theta": real([bandit.theta])}
    pre = pre_update_batch(bandit)
    if estimator == "promp":
        promp = ProMP(policy=policy, inner_lr=bandit.alpha, kl_penalty=0.0)
        phi = adapted(promp, theta, pre)
        return promp.problem(ProMPState(theta, {}, real([0.0])), [pre, post_update_batch(bandit, phi)])
    learner = MAML(policy=policy, inner_lr=bandit.alpha, estimator=estimator)
    phi = adapted(learner, theta, pre)
    post = post_update_batch(bandit, phi)
    if estimator != "emaml":
        return learner.problem([pre, post])
    _, weights = noise_grid(bandit.num_samples)
    earned = weights * len(weights) * -((phi - bandit.goal) ** 2 + bandit.std**2) / 2  # J(phi), weighted as the rows
    credited = pre._replace(target=earned.view(-1, 1, 1).expand_as(pre.target))
    return MAMLProblem(learner, [credited, post], learner.sampling_loss)


def adapted(learner: MAML | ProMP, theta: Params, pre: TrajectoryBatch) -> Tensor:
    actor = {"theta": theta["theta"].expand(len(pre.reward), 1)}
    return learner.adapt(MAMLState(theta, {}), actor, pre)["theta"].squeeze(-1)


def production_meta_gradient(bandit: Bandit, estimator: str) -> float:
    """dV/dtheta as the library computes it: rollout data in, ``MAMLProblem.gradient`` out."""
    gradient, _ = problem_of(bandit, estimator).gradient({"theta": real([bandit.theta])}, ratio_loss)
    return -gradient["theta"].item()  # of the loss, which is -V


def test_the_closed_forms_give_the_numbers_of_the_worked_example():
    """d = 1, s*A = -1/2, A/s = -2, alpha = .1, K = 4, so alpha^2 d / K = .0025:

    exact       -.81                   - .0025 * 5.5  = -.82375
    vanilla     -.9 + .09 * (-2.5)     + .0025 * 4.5  = -1.11375
    score       -.09 * (-3.5)          - .0025 * 10   = +.29
    lvc         -.81                   - .0025 * 19   = -.8575
    first order -.9
    """
    bandit = Bandit(0.7, -0.3, 0.5, 0.1, num_samples=4, baseline=0.0)
    forms = [bandit.exact(), bandit.vanilla(), bandit.score(), bandit.lvc(), bandit.first_order()]
    assert forms == pytest.approx([-0.82375, -1.11375, 0.29, -0.8575, -0.9], rel=1e-12)


@pytest.mark.parametrize("bandit", BANDITS)
def test_the_exact_form_is_the_derivative_of_the_expected_return_after_adaptation(bandit: Bandit):
    """No library code: V(theta) = E J(theta'(theta, e)), the noise held fixed, differentiated directly."""
    theta = real(bandit.theta).requires_grad_()
    noise, weights = noise_grid(bandit.num_samples)
    rewards = reward(bandit, theta + bandit.std * noise)
    phi = theta + bandit.alpha * (noise / bandit.std * (rewards - bandit.b)).mean(-1)
    value = (weights * -((phi - bandit.goal) ** 2 + bandit.std**2) / 2).sum()
    (derivative,) = torch.autograd.grad(value, theta)
    assert derivative.item() == pytest.approx(bandit.exact(), rel=1e-10)
    assert bandit.vanilla() + bandit.score() == pytest.approx(bandit.exact(), rel=1e-12)


@pytest.mark.parametrize("bandit", BANDITS)
def test_the_inner_step_is_the_hand_written_policy_gradient_step(bandit: Bandit):
    pre = pre_update_batch(bandit)
    learner = MAML(policy=BanditPolicy(std=bandit.std), inner_lr=bandit.alpha)
    meta = {"theta": real([bandit.theta])}
    actor = {"theta": meta["theta"].expand(len(pre.reward), 1)}
    phi = learner.adapt(MAMLState(meta, {}), actor, pre)["theta"].squeeze(-1)
    noise, weights = noise_grid(bandit.num_samples)
    credit = reward(bandit, bandit.theta + bandit.std * noise) - bandit.b
    torch.testing.assert_close(phi, bandit.theta + bandit.alpha * (noise / bandit.std * credit).mean(-1))
    # E theta' = theta - alpha d: the inner gradient is unbiased
    assert (weights * phi).sum().item() == pytest.approx(bandit.theta - bandit.alpha * bandit.d, rel=1e-10)


CLOSED_FORMS = {
    "maml": Bandit.vanilla,
    "fomaml": Bandit.first_order,
    "emaml": Bandit.exact,
    "lvc": Bandit.lvc,
    "dice": Bandit.lvc,  # an episode of one step has no products of scores of different steps
    "promp": Bandit.lvc,
}


@pytest.mark.parametrize("bandit", BANDITS)
@pytest.mark.parametrize("estimator", CLOSED_FORMS)
def test_each_estimator_computes_its_own_gradient_and_no_other(estimator: str, bandit: Bandit):
    computed, own = production_meta_gradient(bandit, estimator), CLOSED_FORMS[estimator]
    assert computed == pytest.approx(own(bandit), rel=1e-10)
    for form in {*CLOSED_FORMS.values()} - {own}:  # an estimator under the wrong name must fail this test
        assert abs(computed - form(bandit)) > 1e-3 * abs(computed), f"{estimator} cannot be told from {form.__name__}"


@pytest.mark.parametrize("num_samples", [2, 3])
def test_with_the_expected_reward_as_baseline_the_second_order_term_nearly_vanishes(num_samples: int):
    """ProMP's point: A/s = 1/2 leaves vanilla = first order + 2 alpha^2 d / K."""
    bandit = Bandit(0.7, -0.3, 0.5, 0.1, num_samples, baseline=None)
    remainder = production_meta_gradient(bandit, "maml") - bandit.first_order()
    assert remainder == pytest.approx(2 * 0.1**2 * 1.0 / num_samples, rel=1e-9)


# --- the fitted baseline --------------------------------------------------------------------------


def expected_inner_gradient(bandit: Bandit, baseline: Tensor) -> float:
    """E (theta' - theta) / alpha, the batch credited with r - baseline [row, sample, 1]."""
    pre = pre_update_batch(bandit)
    pre = pre._replace(advantage=reward(bandit, pre.action).squeeze(-1) - baseline)
    policy, rate, theta = BanditPolicy(std=bandit.std), {"theta": real(1.0)}, real([bandit.theta])
    step = vmap(lambda batch: adapt(policy, {"theta": theta}, batch, rate, log_likelihood_loss)["theta"] - theta)
    _, weights = noise_grid(bandit.num_samples)
    return (weights * step(pre).squeeze(-1)).sum().item()


@pytest.mark.parametrize("num_samples", [2, 3])
def test_a_baseline_fitted_to_the_same_samples_shrinks_the_gradient_by_one_in_k(num_samples: int):
    """On one state the linear baseline is the sample mean: E (e_k/s) mean(r) = E (e_k/s) r_k / K = -d/K,
    which it takes away from -d. A baseline of other trajectories takes away nothing. (``predict`` is
    float32: rel 1e-5.)
    """
    bandit = Bandit(0.7, -0.3, 0.5, 0.1, num_samples, baseline=0.0)
    pre = pre_update_batch(bandit)
    rewards = reward(bandit, pre.action).squeeze(-1)
    baseline = LinearFeatureBaseline(regularization=1e-9)
    features = baseline.features(pre.obs, pre.clock)

    own = baseline.predict(baseline.fit(features, rewards, pre.valid), features)
    torch.testing.assert_close(own.double(), rewards.mean((1, 2), keepdim=True).expand_as(own), rtol=1e-5, atol=1e-5)
    shrunk = expected_inner_gradient(bandit, own)
    assert shrunk == pytest.approx(-bandit.d * (num_samples - 1) / num_samples, rel=1e-5)

    strangers = torch.full_like(rewards, -1.7)  # rewards of trajectories that these noises have no part in
    other = baseline.predict(baseline.fit(features, strangers, pre.valid), features)
    assert expected_inner_gradient(bandit, other) == pytest.approx(-bandit.d, rel=1e-5)


# --- the trust region -----------------------------------------------------------------------------


def exact_gradient_batches(learner: MAML, theta: Tensor, goal: float, std: float) -> list[TrajectoryBatch]:
    """One task whose two samples make the inner loss exactly -J up to a constant.

    At a = theta +- s with advantages s^2 -+ d s, the log-likelihood loss has the derivative
    -(1/2) [(s^2 - d s) / s - (s^2 + d s) / s] = d = -J' and the second derivative (1/2) (2 s^2) / s^2 = 1.
    """
    policy, d = BanditPolicy(std=std), theta.item() - goal
    params = {"theta": theta}
    obs = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    action = real([theta.item() + std, theta.item() - std]).view(1, 2, 1, 1)
    advantage = real([std**2 - d * std, std**2 + d * std]).view(1, 2, 1)
    pre = make_batch(policy, params, obs, action, advantage)
    adapted = {"theta": theta - learner.inner_lr * d}
    return [pre, make_batch(policy, adapted, obs, action, advantage)]


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [("maml", 3.24), ("fomaml", 4.0)],  # (1 - .1)^2 / .5^2, and 1 / .5^2 where the inner derivative is forgotten
)
def test_the_curvature_of_the_kl_goes_through_the_inner_step(estimator: str, expected: float):
    learner = MAML(policy=BanditPolicy(std=0.5), inner_lr=0.1, estimator=estimator)
    meta = {"theta": real([0.7])}
    batches = exact_gradient_batches(learner, meta["theta"], goal=-0.3, std=0.5)
    product = MAMLProblem(learner, batches).curvature(meta, num_samples=1000)
    assert product({"theta": real([1.0])})["theta"].item() == pytest.approx(expected, rel=1e-12)
    assert product({"theta": real([-2.5])})["theta"].item() == pytest.approx(-2.5 * expected, rel=1e-12)


def test_the_kl_has_neither_value_nor_gradient_where_the_data_was_collected():
    learner = MAML(policy=BanditPolicy(std=0.5), inner_lr=0.1)
    meta = {"theta": real([0.7])}
    batches = exact_gradient_batches(learner, meta["theta"], goal=-0.3, std=0.5)
    problem = MAMLProblem(learner, batches)
    gradient, kl = problem.gradient(meta, mean_kl)
    assert kl == pytest.approx(0.0, abs=1e-15)
    assert gradient["theta"].item() == pytest.approx(0.0, abs=1e-14)
    # elsewhere: KL = (1 - alpha)^2 h^2 / (2 s^2) and its derivative (1 - alpha)^2 h / s^2
    gradient, kl = problem.gradient({"theta": real([0.8])}, mean_kl)
    assert kl == pytest.approx(3.24 * 0.1**2 / 2, rel=1e-10)
    assert gradient["theta"].item() == pytest.approx(3.24 * 0.1, rel=1e-10)


# --- several steps, learned rates -----------------------------------------------------------------

OBS = real([[1.0, 0.2, -0.3], [0.1, -0.8, 0.5], [0.4, 0.3, 0.9], [-0.6, 0.5, 0.2]])
GOAL = real([0.3, -1.1, 0.6])
HESSIAN = OBS.mT @ OBS  # Q
RATES = real([0.3, 0.1, 0.05])


def least_squares_batch() -> TrajectoryBatch:
    """One task of four samples with actions obs . goal and advantages 4: its log-likelihood loss
    (1/4) sum_k 4 (obs_k . (goal - theta))^2 / 2 is the exact quadratic (theta - goal)^T Q (theta - goal) / 2.
    """
    obs, action = OBS.view(1, 4, 1, 3), (OBS @ GOAL).view(1, 4, 1, 1)
    params = {"theta": torch.zeros(3, dtype=torch.float64), "idle": real([0.0])}
    return make_batch(LinearPolicy(), params, obs, action, torch.full((1, 4, 1), 4.0, dtype=torch.float64))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5])
def test_the_gradient_of_theta_and_of_each_rate_through_several_inner_steps(num_steps: int):
    """V = -d_n^T Q d_n / 2, d_n = M^n d_0, M = I - diag(a) Q:

    dV/dtheta = -(M^n)^T Q d_n,    dV/da_i = sum_k [(M^(n-1-k))^T Q d_n]_i [Q d_k]_i.
    """
    learner = MAML(policy=LinearPolicy(), learn_inner_lr=True, adapt_steps=num_steps)
    theta = real([0.9, 0.4, -0.7])
    meta = {
        "theta": theta,
        "idle": real([0.0]),
        LEARNED_RATE + "theta": RATES,
        LEARNED_RATE + "idle": real([0.1]),
    }
    problem = MAMLProblem(learner, [least_squares_batch()] * (num_steps + 1))
    gradient, _ = problem.gradient(meta, log_likelihood_loss)

    step = torch.eye(3, dtype=torch.float64) - RATES.diag() @ HESSIAN
    distances = [torch.linalg.matrix_power(step, k) @ (theta - GOAL) for k in range(num_steps + 1)]
    last = HESSIAN @ distances[-1]
    by_theta = -torch.linalg.matrix_power(step, num_steps).mT @ last
    by_rate = sum(
        (torch.linalg.matrix_power(step, num_steps - 1 - k).mT @ last) * (HESSIAN @ distances[k])
        for k in range(num_steps)
    )
    torch.testing.assert_close(-gradient["theta"], by_theta, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(-gradient[LEARNED_RATE + "theta"], by_rate, rtol=1e-10, atol=1e-13)
    # a parameter without influence has no inner gradient for its rate to scale
    assert gradient[LEARNED_RATE + "idle"].item() == 0.0
    # negative control: one rate for all would give each entry the sum
    assert (by_rate - by_rate.sum()).abs().min() > 1e-3 * by_rate.abs().max()


def test_without_the_inner_derivative_the_rates_still_have_their_gradient():
    """One step: dV/da_i = [Q d_1]_i [Q d_0]_i needs no second derivative; dV/dtheta loses its factor M^T."""
    theta = real([0.9, 0.4, -0.7])
    meta = {
        "theta": theta,
        "idle": real([0.0]),
        LEARNED_RATE + "theta": RATES,
        LEARNED_RATE + "idle": real([0.1]),
    }
    learner = MAML(policy=LinearPolicy(), learn_inner_lr=True, estimator="fomaml")
    gradient, _ = MAMLProblem(learner, [least_squares_batch()] * 2).gradient(meta, log_likelihood_loss)
    before = HESSIAN @ (theta - GOAL)
    after = HESSIAN @ (theta - RATES * before - GOAL)
    torch.testing.assert_close(-gradient[LEARNED_RATE + "theta"], after * before, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(-gradient["theta"], -after, rtol=1e-10, atol=1e-13)
    second_order = after - HESSIAN @ (RATES * after)  # M^T Q d_1
    assert (after - second_order).abs().max() > 1e-2


@pytest.mark.parametrize("batched", [False, True], ids=["autograd", "vmap"])
@pytest.mark.parametrize("first_order", [False, True])
def test_first_order_blocks_the_inner_derivative_alone(batched: bool, first_order: bool):
    """d phi / d theta is I - diag(a) Q, or I where the gradient is a constant; d phi / d a stays -Q d."""
    theta, rate = real([0.9, 0.4, -0.7]), RATES.clone()

    def phi(theta: Tensor, rate: Tensor) -> Tensor:
        params, rates = {"theta": theta, "idle": real([0.0])}, {"theta": rate, "idle": real(0.1)}

        def inner(batch: TrajectoryBatch) -> Tensor:
            return adapt(LinearPolicy(), params, batch, rates, log_likelihood_loss, first_order=first_order)["theta"]

        if batched:
            return vmap(inner)(least_squares_batch())[0]
        return inner(single(least_squares_batch()))

    by_theta, by_rate = torch.autograd.functional.jacobian(phi, (theta, rate))
    identity = torch.eye(3, dtype=torch.float64)
    expected = identity if first_order else identity - RATES.diag() @ HESSIAN
    torch.testing.assert_close(by_theta, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(by_rate, (-HESSIAN @ (theta - GOAL)).diag(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(phi(theta, rate), theta - RATES * (HESSIAN @ (theta - GOAL)), rtol=1e-12, atol=0)


# --- the two-layer toy ----------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "share"), [("maml", 1.0), ("fomaml", 0.5)])
def test_the_two_layer_toy_tells_maml_from_first_order_and_from_reptile(estimator: str, share: float):
    """mu = u v with v = 0, loss (u v - g)^2 / 2. The step leaves u and makes v' = alpha u g, so mu' = alpha
    u^2 g and the loss after it is (1 - alpha u^2)^2 g^2 / 2, with the derivative -2 alpha u (1 - alpha u^2)
    g^2 in u. First order sees half of it (u' alone, not v' through u), and u' - u = 0 is all that Reptile
    would see.
    """
    u, goal, alpha = 1.3, 0.8, 0.2
    learner = MAML(policy=TwoLayerPolicy(), inner_lr=alpha, estimator=estimator)
    meta = {"u": real([u]), "v": real([0.0])}
    obs = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    batch = make_batch(TwoLayerPolicy(), meta, obs, torch.full_like(obs, goal), torch.ones_like(obs).squeeze(-1))
    phi = learner.adapted(meta, [single(batch)])
    assert phi["u"].item() == u
    assert phi["v"].item() == pytest.approx(alpha * u * goal, rel=1e-14)
    gradient, _ = MAMLProblem(learner, [batch, batch]).gradient(meta, log_likelihood_loss)
    whole = -2 * alpha * u * (1 - alpha * u**2) * goal**2
    assert gradient["u"].item() == pytest.approx(share * whole, rel=1e-12)
