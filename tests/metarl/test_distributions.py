"""The distributions of actions against torch.distributions, and the trap of the clipped action."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence
from torch.func import grad, vmap

from metarl.algorithms.maml import MAML
from metarl.envs.small.navigation import Navigation
from metarl.networks.distributions import Categorical, DiagGaussian, one_hot
from metarl.rollout import rollout


def random_pair(*shape: int, seed: int = 0) -> tuple[DiagGaussian, DiagGaussian]:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    return DiagGaussian(draws[0], 0.5 * draws[1]), DiagGaussian(draws[2], 0.5 * draws[3])


def reference(dist: DiagGaussian) -> Independent:
    return Independent(Normal(dist.mean, dist.log_std.exp()), 1)


def test_log_probability_entropy_and_divergence_are_those_of_torch():
    p, q = random_pair(5, 7, 3)
    action = p.mean + 1.3
    torch.testing.assert_close(p.log_prob(action), reference(p).log_prob(action), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.entropy(), reference(p).entropy(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.kl(q), kl_divergence(reference(p), reference(q)), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(p.kl(q), q.kl(p)), "the direction of the divergence cannot be told"


def test_one_standard_deviation_serves_every_observation():
    """The policy's log_std is [1, act] against means [env, act]."""
    p, q = random_pair(6, 2)
    action = q.mean
    for dist in (p, q):
        shared = dist._replace(log_std=dist.log_std[:1])
        expanded = DiagGaussian(dist.mean, dist.log_std[:1].expand_as(dist.mean))
        torch.testing.assert_close(shared.log_prob(action), expanded.log_prob(action))
        torch.testing.assert_close(shared.kl(p), expanded.kl(p))
        torch.testing.assert_close(p.kl(shared), p.kl(expanded))


def test_a_standard_normal_by_hand():
    """At 1 in each of two dimensions: -1/2 - 1/2 - log(2 pi); entropy log(2 pi e)."""
    dist = DiagGaussian(torch.zeros(2), torch.zeros(2))
    assert dist.log_prob(torch.ones(2)).item() == pytest.approx(-1 - math.log(2 * math.pi), rel=1e-6)
    assert dist.entropy().item() == pytest.approx(math.log(2 * math.pi * math.e), rel=1e-6)
    assert dist.mode().tolist() == [0.0, 0.0]


def test_the_ratio_of_two_policies_is_the_product_of_the_ratios_of_each_dimension():
    """A log-probability averaged over the dimensions gives the cube root of an importance ratio instead."""
    p, q = random_pair(100, 3)
    action = q.mean
    ratio = (p.log_prob(action) - q.log_prob(action)).exp()
    single = [
        (
            DiagGaussian(p.mean[:, [i]], p.log_std[:, [i]]).log_prob(action[:, [i]])
            - DiagGaussian(q.mean[:, [i]], q.log_std[:, [i]]).log_prob(action[:, [i]])
        ).exp()
        for i in range(3)
    ]
    product = single[0] * single[1] * single[2]
    torch.testing.assert_close(ratio, product, rtol=1e-10, atol=0)
    assert (product - product ** (1 / 3)).abs().max() > 0.1


def test_the_density_integrates_to_one():
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    dist = DiagGaussian(torch.full((4001, 1), 0.7), torch.full((4001, 1), math.log(0.6)))
    density = dist.log_prob(grid.unsqueeze(-1)).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-6)


def test_samples_have_the_moments_asked_for():
    """400,000 draws: the mean is good to s / 632, the variance to s^2 / 447; five of each."""
    mean, std = torch.tensor([0.8, -2.0]), torch.tensor([0.5, 3.0])
    dist = DiagGaussian(mean.expand(400_000, 2), std.log().expand(400_000, 2))
    sample = dist.sample(torch.Generator().manual_seed(0))
    assert ((sample.mean(0) - mean).abs() < 5 * std / 632).all()
    assert ((sample.var(0) - std**2).abs() < 5 * std**2 / 447).all()
    assert abs(torch.corrcoef(sample.T)[0, 1].item()) < 5 / 632
    again = dist.sample(torch.Generator().manual_seed(0))
    assert torch.equal(sample, again)
    assert not torch.equal(sample, dist.sample(torch.Generator().manual_seed(1)))


def test_samples_take_the_precision_and_the_standard_deviation_of_the_distribution():
    p, _ = random_pair(5, 2)
    shared = p._replace(log_std=torch.full((1, 2), -30.0, dtype=torch.float64))
    sample = shared.sample(torch.Generator().manual_seed(0))
    assert sample.dtype == torch.float64
    torch.testing.assert_close(sample, p.mean, rtol=0, atol=1e-11)


def test_the_divergence_vanishes_at_itself_with_its_gradient():
    p, q = random_pair(4, 3)
    assert p.kl(p).abs().max() < 1e-15
    assert (p.kl(q) > 0).all()

    def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
        return p.kl(DiagGaussian(mean, log_std)).sum()

    assert grad(divergence, argnums=(0, 1))(*p)[0].abs().max() < 1e-15
    assert grad(divergence, argnums=(0, 1))(*p)[1].abs().max() < 1e-15
    assert grad(divergence)(*q).abs().max() > 0.1


def test_vmap_over_distributions_is_the_batch():
    p, q = random_pair(4, 6, 3)
    torch.testing.assert_close(vmap(lambda p, q: p.kl(q))(p, q), p.kl(q))
    torch.testing.assert_close(vmap(lambda p, a: p.log_prob(a))(p, q.mean), p.log_prob(q.mean))


# --- the clipped action --------------------------------------------------------------------------


def expected_score(clip: float | None) -> float:
    """E d/dmu log pi(a) at mu = .8, s = 1, by the trapezoidal rule; with ``clip`` of the action sent to the
    motors.
    """
    grid = torch.linspace(-11, 12, 230_001, dtype=torch.float64)
    executed = grid if clip is None else grid.clamp(-clip, clip)

    def log_prob(mean: Tensor, action: Tensor) -> Tensor:
        return DiagGaussian(mean.view(1), torch.zeros(1, dtype=torch.float64)).log_prob(action.view(1))

    mean = torch.tensor(0.8, dtype=torch.float64)
    score = vmap(grad(log_prob), in_dims=(None, 0))(mean, executed)
    density = DiagGaussian(mean.view(1), torch.zeros(1)).log_prob(grid.unsqueeze(-1)).exp()
    return torch.trapezoid(score * density, grid).item()


def test_the_score_of_the_raw_action_averages_to_zero_and_that_of_the_clipped_one_does_not():
    """With lo = -1 - mu = -1.8 and hi = 1 - mu = .2 the clipped score averages to
    lo Phi(lo) + hi (1 - Phi(hi)) + phi(lo) - phi(hi) = -.29262: a pull inwards that no reward asked for.
    """
    lo, hi = -1.8, 0.2
    cdf = {x: (1 + math.erf(x / math.sqrt(2))) / 2 for x in (lo, hi)}
    pdf = {x: math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (lo, hi)}
    closed_form = lo * cdf[lo] + hi * (1 - cdf[hi]) + pdf[lo] - pdf[hi]
    assert closed_form == pytest.approx(-0.29262, abs=5e-6)
    assert expected_score(clip=1.0) == pytest.approx(closed_form, abs=1e-6)
    assert expected_score(clip=None) == pytest.approx(0.0, abs=1e-9)


def test_a_rollout_records_the_raw_action_and_its_probability():
    """Half of the actions of N(.8, 1) leave [-1, 1]; the environment clips them, the learner must not know.
    The score of the recorded ones averages to 0 within 5 standard errors, where clipping would bring -.29.
    """
    env = Navigation(horizon=50).make(2, 40, seed=0)
    learner = MAML()
    state = learner.init(env.spec, torch.Generator().manual_seed(0))
    params = {name: torch.zeros_like(value) for name, value in state.meta.items()}
    last = max(name for name in params if name.startswith("bias"))
    params[last] += 0.8
    actor = learner.actor(state._replace(meta=params), 2)
    env.set_tasks(torch.full((2, 2), 40.0))
    batch, _ = rollout(env, learner.act, actor, 1, torch.Generator().manual_seed(1))
    assert (batch.action.abs() > 1).double().mean() > 0.3
    expected = Normal(torch.tensor(0.8), torch.tensor(1.0)).log_prob(batch.action).sum(-1)
    torch.testing.assert_close(batch.log_prob, expected)
    score = batch.action - 0.8  # d/dmu log pi
    assert abs(score.mean().item()) < 5 / math.sqrt(score.numel())
    assert (batch.action.clamp(-1, 1) - 0.8).mean().item() == pytest.approx(-0.29262, abs=0.05)


# --- choices -------------------------------------------------------------------------------------


def random_choices(*shape: int, seed: int = 0) -> tuple[Categorical, Categorical]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return Categorical.from_logits(logits[0]), Categorical.from_logits(logits[1])


def reference_choice(dist: Categorical) -> torch.distributions.OneHotCategorical:
    return torch.distributions.OneHotCategorical(logits=dist.log_probs)


def test_choices_are_those_of_torch():
    p, q = random_choices(5, 7, 4)
    for arm in range(4):
        action = torch.eye(4, dtype=torch.float64)[arm].expand(5, 7, 4)
        torch.testing.assert_close(p.log_prob(action), reference_choice(p).log_prob(action), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(p.log_prob(action), p.log_probs[..., arm], rtol=0, atol=0)
    torch.testing.assert_close(p.entropy(), reference_choice(p).entropy(), rtol=1e-12, atol=1e-12)
    expected = kl_divergence(reference_choice(p), reference_choice(q))
    torch.testing.assert_close(p.kl(q), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(p.kl(q), q.kl(p)), "the direction of the divergence cannot be told"


def test_three_choices_by_hand():
    """Logits log 1, log 2, log 5: probabilities 1/8, 1/4, 5/8; entropy 3/8 + 2/4 - 5/8 log2(5/8) bits; and
    KL to the uniform log 3 - entropy.
    """
    dist = Categorical.from_logits(torch.tensor([1.0, 2.0, 5.0]).log() + 7)
    assert dist.log_probs.exp().tolist() == pytest.approx([0.125, 0.25, 0.625], rel=1e-6)
    assert dist.mode().tolist() == [0.0, 0.0, 1.0]
    assert dist.log_prob(torch.tensor([0.0, 1.0, 0.0])).item() == pytest.approx(math.log(0.25), rel=1e-6)
    entropy = (0.375 + 0.5 - 0.625 * math.log2(0.625)) * math.log(2)
    assert dist.entropy().item() == pytest.approx(entropy, rel=1e-6)
    uniform = Categorical.from_logits(torch.zeros(3))
    assert uniform.entropy().item() == pytest.approx(math.log(3), rel=1e-6)
    assert dist.kl(uniform).item() == pytest.approx(math.log(3) - entropy, rel=1e-5)
    assert dist.kl(dist).item() == 0.0


def test_choices_are_drawn_with_their_probabilities():
    """400,000 draws of probabilities .6, .3, .0999, .0001: each within five standard deviations."""
    probability = torch.tensor([0.6, 0.3, 0.0999, 0.0001])
    dist = Categorical.from_logits((3 * probability).log().expand(400_000, 4))
    sample = dist.sample(torch.Generator().manual_seed(0))
    assert sample.sum(-1).eq(1).all()
    assert (sample.eq(0) | sample.eq(1)).all()
    error = (sample.mean(0) - probability).abs()
    deviation = (probability * (1 - probability) / 400_000).sqrt()
    assert (error < 5 * deviation).all()
    assert sample[:, 3].sum() > 0  # 40 expected
    # negative control: the same noise on probabilities in place of their logarithms is another distribution
    other = Categorical(probability.expand(400_000, 4)).sample(torch.Generator().manual_seed(0))
    assert ((other.mean(0) - probability).abs() > 5 * deviation).any()


def test_seeds_determine_the_choices_and_draws_are_independent():
    dist = Categorical.from_logits(torch.zeros(100_000, 2, 2))
    first, again, other = (dist.sample(torch.Generator().manual_seed(seed))[..., 0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for x, y in ((first[:, 0], first[:, 1]), (first[1:, 0], first[:-1, 0])):
        assert abs(torch.corrcoef(torch.stack([x, y]))[0, 1].item()) < 5 / math.sqrt(100_000)


def test_a_uniform_draw_of_exactly_zero_does_no_harm(monkeypatch: pytest.MonkeyPatch):
    """Its Gumbel noise would be -log(-log 0) = -infinity, and all choices alike the first one: with the same finite
    noise on each, the most likely is taken.
    """
    dist = Categorical.from_logits(torch.tensor([0.2, 0.5, 0.3]).log())
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.zeros(shape))
    assert dist.sample(torch.Generator()).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_extreme_logits_stay_finite_with_their_gradients(scale: float):
    logits = torch.tensor([[scale, 0.0, -scale], [-scale, scale, scale]], requires_grad=True)
    p, q = Categorical.from_logits(logits), Categorical.from_logits(logits.flip(-1))
    unlikely = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    for value in (p.entropy(), p.log_prob(p.mode()), p.log_prob(unlikely), p.kl(q)):
        assert value.isfinite().all()
        (gradient,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        assert gradient.isfinite().all()
    # the first is certain of its first choice, the second torn between two
    torch.testing.assert_close(p.entropy(), torch.tensor([0.0, math.log(2)]))
    sample = Categorical(p.log_probs.detach().expand(1000, 2, 3)).sample(torch.Generator().manual_seed(0))
    assert sample[:, 0].mean(0).tolist() == [1.0, 0.0, 0.0]
    assert sample[:, 1, 0].sum() == 0
    assert abs(sample[:, 1, 1].mean().item() - 0.5) < 5 * 0.5 / math.sqrt(1000)


def test_the_score_of_a_choice_averages_to_zero():
    """sum_a p(a) d/dlogits log p(a) = 0."""
    logits = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def expected_log_prob(logits: Tensor) -> Tensor:
        dist = Categorical.from_logits(logits.expand(4, 4))
        weight = dist.log_probs.detach().exp().diagonal()
        return (weight * dist.log_prob(torch.eye(4, dtype=torch.float64))).sum()

    assert grad(expected_log_prob)(logits).abs().max() < 1e-15


def test_choices_vmap():
    p, q = random_choices(4, 6, 3)
    torch.testing.assert_close(vmap(lambda p, q: p.kl(q))(p, q), p.kl(q))
    torch.testing.assert_close(vmap(lambda p: p.entropy())(p), p.entropy())


def test_one_hot_marks_the_first_of_equal_scores():
    score = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0], [-1.0, -2.0, -1.0], [0.0, -math.inf, 0.5]])
    expected = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert one_hot(score).tolist() == expected
    assert one_hot(score.double()).dtype == torch.float64
    assert one_hot(score.expand(2, 4, 3)).tolist() == [expected, expected]
