"""Soft actor-critic against closed forms: integrals of its policy, and a linear-quadratic problem's Riccati."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from metarl.losses.sac import SoftNetworks, Transitions, bootstrapped, critic_loss, followed, policy_loss
from metarl.networks.distributions import TanhGaussian
from metarl.networks.layers import dense, dense_params
from metarl.types import Params

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the tanh-Gaussian


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-1.5, 0.8)])
def test_the_log_probability_of_a_squashed_action_integrates_to_one_and_gives_the_entropy(mean: float, std: float):
    dist = TanhGaussian(torch.tensor([mean]), torch.tensor([math.log(std)]))
    edges = torch.linspace(-1, 1, 400_001)
    middle, width = (0.5 * (edges[1:] + edges[:-1])).unsqueeze(-1), 2 / 400_000
    log_density = dist.log_prob(middle)
    assert log_density.exp().sum().item() * width == pytest.approx(1, abs=1e-4)
    entropy = -(log_density.exp() * log_density).sum().item() * width
    assert dist.entropy().item() == pytest.approx(entropy, abs=2e-3)


@pytest.mark.usefixtures("float64")
def test_a_sample_says_its_own_log_probability_and_has_gradients():
    mean, log_std = torch.randn(5, 3, generator=seeded()), torch.randn(5, 3, generator=seeded(1)) * 0.3
    mean.requires_grad_()
    dist = TanhGaussian(mean, log_std)
    noise = torch.randn(5, 3, generator=seeded(2))
    action, log_prob = dist.sample_with_log_prob(noise)
    torch.testing.assert_close(dist.log_prob(action), log_prob, rtol=1e-8, atol=1e-8)
    (slope,) = torch.autograd.grad(action.sum(), mean)
    torch.testing.assert_close(slope, 1 - action.detach().square())
    assert torch.equal(dist.sample(seeded(2)), action)


def test_actions_at_the_edge_have_finite_log_probabilities():
    dist = TanhGaussian(torch.tensor([[30.0]]), torch.tensor([[0.0]]))
    action, log_prob = dist.sample_with_log_prob(torch.zeros(1, 1))
    assert action.item() == 1.0
    assert log_prob.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 30), rel=1e-5)
    assert dist.log_prob(action).isfinite().all()


@pytest.mark.usefixtures("float64")
def test_divergence_is_that_of_the_normals_as_samples_estimate_it():
    p = TanhGaussian(torch.tensor([0.3, -0.2]), torch.tensor([-0.5, 0.1]))
    q = TanhGaussian(torch.tensor([0.0, 0.4]), torch.tensor([0.0, -0.2]))
    action, log_prob = TanhGaussian(p.mean.expand(400_000, 2), p.log_std.expand(400_000, 2)).sample_with_log_prob(
        torch.randn(400_000, 2, generator=seeded())
    )
    assert p.kl(q).item() == pytest.approx((log_prob - q.log_prob(action)).mean().item(), abs=5e-3)


# --- the networks and losses


def test_two_critics_in_one_product_are_two_networks():
    params = dense_params("critic", (3, 8, 8, 1), seeded(), copies=(2,))
    x = torch.randn(4, 5, 3, generator=seeded(1))
    both = dense(params, "critic", x)
    assert both.shape == (2, 4, 5, 1)
    for copy in range(2):
        single = {name: value[copy] for name, value in params.items()}
        torch.testing.assert_close(dense(single, "critic", x), both[copy])


def test_a_target_by_hand():
    """Zero networks: Q is 0, the policy N(0, 1); V = -temperature * log pi, of noise 0: log pi = -log sqrt(2 pi)
    each dimension. A terminated step bootstraps from nothing."""
    networks = SoftNetworks((4,))
    policy, critic = ({name: torch.zeros_like(x) for name, x in each.items()} for each in networks.init(2, 1, seeded()))
    state = torch.zeros(2, 2)
    steps = Transitions(state, torch.zeros(2, 1), torch.tensor([1.0, 2.0]), state, torch.tensor([False, True]))
    target = bootstrapped(
        networks, policy, critic, steps, torch.zeros(2, 1), discount=0.5, temperature=torch.tensor(0.2)
    )
    assert target.tolist() == pytest.approx([1 + 0.5 * 0.2 * 0.5 * math.log(2 * math.pi), 2.0])
    assert critic_loss(networks, critic, steps, target).item() == pytest.approx(2 * target.square().mean().item())
    moved = followed({"x": torch.tensor(0.0)}, {"x": torch.tensor(1.0)}, 0.25)
    assert moved["x"].item() == 0.25


# --- a linear-quadratic problem: x' = a x + b u, reward -(x² + r u²)


class LQ(NamedTuple):
    a: float = 0.9
    b: float = 0.5
    r: float = 0.5
    discount: float = 0.8

    def riccati(self) -> tuple[float, float, float]:
        """P, K and H = r + discount b² P: V(x) = -P x² + c, u = -K x; with entropy at temperature t the optimal policy
        is N(-K x, t / (2 H)), for Q is quadratic in u with curvature H."""
        p = 1.0
        for _ in range(1000):
            h = self.r + self.discount * self.b**2 * p
            gain = self.discount * self.a * self.b * p / h
            p = 1 + self.discount * self.a**2 * p - gain**2 * h
        return p, gain, h


class Quadratic(SoftNetworks):
    """The function class that the solution lies in: Q is quadratic in x and u, the policy's mean linear in x."""

    def init(self, num_seen: int, num_actions: int, generator: torch.Generator) -> tuple[Params, Params]:
        return {"gain": torch.zeros(1, 1), "log_std": torch.full((1,), -2.0)}, {"weight": torch.zeros(2, 4, 1)}

    def policy(self, params: Params, seen: Tensor) -> TanhGaussian:
        return TanhGaussian(seen @ params["gain"], params["log_std"].expand_as(seen))

    def critics(self, params: Params, seen: Tensor, action: Tensor) -> Tensor:
        features = torch.cat([seen.square(), seen * action, action.square(), torch.ones_like(seen)], dim=-1)
        return (features @ params["weight"]).squeeze(-1)


Solved = tuple[SoftNetworks, Params, Params]


def solve(problem: LQ, networks: SoftNetworks, temperature: float, *, steps: int, lr: float, reach: float) -> Solved:
    """Soft actor-critic on transitions of uniform states and actions within ``reach``."""
    generator, batch = seeded(), 128
    policy, critic = ({n: x.requires_grad_() for n, x in each.items()} for each in networks.init(1, 1, generator))
    slow = {name: x.detach().clone() for name, x in critic.items()}
    adams = [torch.optim.Adam(each.values(), lr=lr) for each in (critic, policy)]
    schedules = [torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.03, total_iters=steps) for adam in adams]
    alpha = torch.tensor(temperature)
    for _ in range(steps):
        x, u = reach * (2 * torch.rand(2, batch, 1, generator=generator) - 1)
        reward = -(x.square() + problem.r * u.square()).squeeze(-1)
        data = Transitions(x, u, reward, problem.a * x + problem.b * u, torch.zeros(batch, dtype=torch.bool))
        noise = torch.randn(2, batch, 1, generator=generator)
        target = bootstrapped(networks, policy, slow, data, noise[0], discount=problem.discount, temperature=alpha)
        of_critic = critic_loss(networks, critic, data, target)
        of_policy, _ = policy_loss(networks, policy, critic, x, noise[1], temperature=alpha)
        for loss, params in ((of_critic, critic), (of_policy, policy)):
            leaves = list(params.values())
            for leaf, slope in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
                leaf.grad = slope
        for moving in (*adams, *schedules):
            moving.step()
        slow = followed(slow, {name: value.detach() for name, value in critic.items()}, 0.05)
    return networks, policy, critic


@torch.no_grad()
def found(solved: Solved, reach: float) -> tuple[float, float, float]:
    """Gain, curvature of the value and deviation of the policy, over states within ``reach``."""
    networks, policy, critic = solved
    x = torch.linspace(-reach, reach, 81).unsqueeze(-1)
    dist = networks.policy(policy, x)
    action = dist.mode()
    gain = -(x * action).sum() / x.square().sum()
    value = networks.critics(critic, x, action).amin(0)
    basis = torch.cat([x.square(), torch.ones_like(x)], dim=1)
    curvature = -torch.linalg.lstsq(basis, value.unsqueeze(-1)).solution[0, 0]
    deviation = (dist.log_std.exp() * (1 - action.square())).mean()
    return gain.item(), curvature.item(), deviation.item()


def test_it_solves_a_linear_quadratic_problem():
    """Gain, value and the policy's deviation against the Riccati equation, where actions are small enough for tanh."""
    problem, temperature = LQ(), 0.0015
    p, gain, h = problem.riccati()
    solved = solve(problem, Quadratic(), temperature, steps=500, lr=0.03, reach=0.3)
    assert found(solved, 0.3) == pytest.approx((gain, p, math.sqrt(temperature / (2 * h))), rel=0.03)


@pytest.mark.slow
def test_its_networks_solve_a_linear_quadratic_problem():
    problem, temperature = LQ(), 0.02
    p, gain, h = problem.riccati()
    solved = solve(problem, SoftNetworks((64, 64)), temperature, steps=6000, lr=3e-3, reach=1.0)
    assert found(solved, 0.7) == pytest.approx((gain, p, math.sqrt(temperature / (2 * h))), rel=0.05)
