"""VariBAD's ELBO against closed forms, and its encoder and decoders against arithmetic."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.losses.elbo import NegativeElbo, Trials, drawn, kl_to_previous, negative_elbo
from metarl.networks.belief import BeliefModel, Posterior, Transitions
from metarl.networks.layers import apply_layers
from metarl.types import Params

pytestmark = pytest.mark.usefixtures("one_thread", "doubles")
SPEC = EnvSpec(obs_dim=2, action_dim=3, horizon=4, terminates=False, has_success=False)


@pytest.fixture
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Conjugate(BeliefModel):
    """The exact posterior of a latent m ~ N(0, 1) whose rewards are N(m, 1/2): after t steps its precision is 1 + 2 t
    and its mean twice the sum of the rewards over that."""

    def posteriors(self, params: Params, steps: Transitions, *, bptt_steps: int = 0) -> Posterior:
        count = torch.arange(steps.reward.shape[1] + 1.0)
        sums = torch.cat([torch.zeros(len(steps.reward), 1), steps.reward.cumsum(1)], dim=1)
        mean = 2 * sums / (1 + 2 * count)
        return Posterior(mean.unsqueeze(-1), (-(1 + 2 * count).log()).expand_as(mean).unsqueeze(-1))


EXACT = Conjugate(latent_size=1, decoder_sizes=(), reward_of="next_obs")
IDENTITY = {"decoder.reward.weight_0": torch.tensor([[1.0, 0.0, 0.0]]), "decoder.reward.bias_0": torch.zeros(1)}


def trials(reward: Tensor, copies: int = 1) -> Trials:
    """Of observations and actions that mean nothing."""
    reward = reward.repeat(copies, 1)
    obs = torch.zeros(*reward.shape, 2)
    steps = Transitions(obs, torch.zeros(*reward.shape, 3), reward, obs)
    return Trials(steps, torch.full((len(reward),), reward.shape[1]), torch.zeros(len(reward), 0))


def test_the_elbo_of_a_linear_gaussian_model_is_its_closed_form():
    """E_q_t[sum_i (m - r_i)^2] = sum_i (mean_t - r_i)^2 + H var_t, on average over all t from 0 to H; 40,000 draws."""
    reward = torch.tensor([[0.3, -1.2, 2.0, 0.7]])
    terms = negative_elbo(EXACT, {k: v.double() for k, v in IDENTITY.items()}, trials(reward, 40_000), seeded())
    count = torch.arange(5.0)
    variance = 1 / (1 + 2 * count)
    mean = 2 * variance * torch.cat([torch.zeros(1), reward[0].cumsum(0)])
    expected = (mean.unsqueeze(1) - reward).square().sum(1) + 4 * variance
    assert terms.reward.item() == pytest.approx(expected.mean().item(), rel=0.01)
    before, mean_before = torch.cat([torch.ones(1), variance[:-1]]), torch.cat([torch.zeros(1), mean[:-1]])
    kl = 0.5 * (variance / before + (mean - mean_before) ** 2 / before - 1 + (before / variance).log())
    assert terms.kl.item() == pytest.approx(kl.mean().item(), rel=1e-9)
    assert terms.state == terms.task == 0


def test_the_elbo_is_the_evidence_where_the_posterior_is_exact_and_below_it_elsewhere():
    """log p(r) of r ~ N(0, 1/2 I + 1 1'), against E_q[log p(r | m)] - KL(q || prior) of the exact q and of others."""
    reward = torch.tensor([0.3, -1.2, 2.0, 0.7])
    covariance = 0.5 * torch.eye(4) + torch.ones(4, 4)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(4), covariance).log_prob(reward).item()

    def elbo(mean: float, variance: float) -> float:
        q = Posterior(torch.tensor([[[0.0], [mean]]]), torch.tensor([[[0.0], [math.log(variance)]]]))
        likelihood = -((mean - reward).square().sum() + 4 * variance) - 4 * 0.5 * math.log(math.pi)
        return (likelihood - kl_to_previous(q)[0, 1]).item()

    exact = 2 * reward.sum().item() / 9, 1 / 9
    assert elbo(*exact) == pytest.approx(evidence)
    for other in ((exact[0] + 0.1, exact[1]), (exact[0], 0.2), (0.0, 1.0)):
        assert elbo(*other) < evidence - 1e-3


def test_kl_to_the_posterior_before_by_hand():
    """N(1, 4) to N(0, 1): (4 + 1 - 1 - ln 4) / 2. N(3, 1) to N(1, 4): (1/4 + 4/4 - 1 + ln 4) / 2. Dimensions add."""
    mean = torch.tensor([[[1.0, 1.0], [3.0, 1.0]]])
    log_var = torch.tensor([[[4.0, 4.0], [1.0, 4.0]]]).log()
    expected = [[2 * (4 - math.log(4)) / 2, (0.25 + math.log(4)) / 2]]
    torch.testing.assert_close(kl_to_previous(Posterior(mean, log_var)), torch.tensor(expected))


MODEL = BeliefModel(
    latent_size=2,
    belief_units=4,
    obs_units=3,
    action_units=2,
    reward_units=2,
    decoder_sizes=(5,),
    decode_state=True,
    decode_task=2,
)


def random_trials(num_trials: int = 6, num_steps: int = 7) -> Trials:
    generator = seeded(1)
    shape = (num_trials, num_steps)
    steps = Transitions(*(torch.randn(*shape, *size, generator=generator) for size in ((2,), (3,), (), (2,))))
    length = torch.tensor([7, 7, 3, 5, 1, 7])[:num_trials]
    return Trials(steps, length, torch.randn(num_trials, 2, generator=generator))


def params_of(model: BeliefModel) -> Params:
    params = model.init(SPEC, seeded())
    return {name: x + 0.1 * torch.randn(x.shape, generator=seeded(2)) for name, x in params.items()}


def total(terms: NegativeElbo) -> Tensor:
    return terms.reward + terms.state + terms.task + 0.3 * terms.kl


@pytest.mark.parametrize("drawing", [{}, {"prefixes": 3, "decodes": 2}], ids=["all", "drawn"])
def test_gradients_are_finite_differences(drawing: dict[str, int]):
    """Of the whole loss by a number of each parameter, draws alike."""
    params, data = params_of(MODEL), random_trials()
    leaves = {name: x.clone().requires_grad_() for name, x in params.items()}
    gradient = torch.autograd.grad(total(negative_elbo(MODEL, leaves, data, seeded(3), **drawing)), leaves.values())
    for (name, x), slope in zip(params.items(), gradient, strict=True):
        place = (x.numel() * 5) // 7
        values = []
        for sign in (1, -1):
            moved = x.clone()
            moved.view(-1)[place] += sign * 1e-5
            values.append(total(negative_elbo(MODEL, params | {name: moved}, data, seeded(3), **drawing)))
        assert slope.reshape(-1)[place].item() == pytest.approx(
            (values[0] - values[1]).item() / 2e-5, rel=1e-4, abs=1e-6
        )


def test_what_is_drawn_estimates_what_is_summed():
    """3,000 estimates from 2 prefixes and 3 steps each, of trials of equal length: their mean is that of all."""
    params, data = params_of(MODEL), random_trials(2)
    many = tree_map(lambda x: x.repeat(3000, *(1,) * (x.dim() - 1)), data)
    exact = negative_elbo(MODEL, params, many, seeded(4))
    estimate = negative_elbo(MODEL, params, many, seeded(5), prefixes=2, decodes=3)
    for name, one, other in zip(NegativeElbo._fields, exact, estimate, strict=True):
        assert other.item() == pytest.approx(one.item(), rel=0.03), name


def test_padding_counts_for_nothing():
    params, data = params_of(MODEL), random_trials()
    padded = torch.arange(7) >= data.length.unsqueeze(1)
    other = Transitions(*(torch.where(padded.view(6, 7, *(1,) * (x.dim() - 2)), 1e3, x) for x in data.steps))
    for drawing in ({}, {"prefixes": 4, "decodes": 3}):
        one = negative_elbo(MODEL, params, data, seeded(3), **drawing)
        two = negative_elbo(MODEL, params, data._replace(steps=other), seeded(3), **drawing)
        assert one == two
    index = drawn(torch.tensor([[4], [1]]), 1000, 9, seeded())
    assert set(index[0].tolist()) == {0, 1, 2, 3}
    assert set(index[1].tolist()) == {0}


def test_step_by_step_is_the_whole_trial():
    params, data = params_of(MODEL), random_trials()
    posteriors, hidden = MODEL.posteriors(params, data.steps), MODEL.empty_memory(6, torch.device("cpu"))
    for step in range(8):
        here = MODEL.posterior(params, hidden)
        torch.testing.assert_close(here.features(), posteriors.features()[:, step])
        if step < 7:
            _, hidden = MODEL.remember(params, Transitions(*(x[:, step : step + 1] for x in data.steps)), hidden)
    leaves = Transitions(*(x.clone().requires_grad_() for x in data.steps))
    cut = MODEL.posteriors(params, leaves, bptt_steps=3)
    torch.testing.assert_close(cut.mean, posteriors.mean)
    (slope,) = torch.autograd.grad(cut.mean[:, 5].sum(), leaves.reward)
    assert slope[:, :3].eq(0).all()
    assert slope[:, 3:5].ne(0).any(0).all()


def test_decoders_of_cells_have_an_output_for_each():
    """Observations (x, y) below (3, 2) are numbered 2 x + y; rewards and tasks are read at that output."""
    model = replace(MODEL, levels=(3, 2), reward_model="bernoulli", decode_state=False)
    params = params_of(model)
    cells = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    assert model.index(cells).tolist() == [0, 1, 2, 5]
    latent = torch.randn(1, 3, 2, generator=seeded(6))
    logits = model.reward_logits(params, latent)
    assert logits.shape == (1, 3, 6)
    reward = torch.tensor([[1.0, -0.1, 0.0, 2.0]])
    steps = Transitions(cells[None], torch.zeros(1, 4, 3), reward, cells[None])
    loss = model.reward_loss(params, latent, Transitions(*(x.unsqueeze(1) for x in steps)))
    sign = torch.tensor([1.0, -1.0, -1.0, 1.0])
    torch.testing.assert_close(loss, -(sign * logits[..., [0, 1, 2, 5]]).sigmoid().log())
    task = model.task_loss(params, latent, torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(task, -apply_layers(params, "decoder.task", latent).log_softmax(-1)[..., 4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode_reward": False}, "decode_reward is False: use True"),
        ({"obs_units": 0, "reward_units": 0}, "obs_units is 0: use at least 1"),
        ({"levels": (5, 0)}, r"levels is \(5, 0\): use at least 1 each"),
        ({"levels": (5, 5), "decode_task": 3}, "decode_task is 3: use 2"),
        ({"latent_size": 0}, "latent_size is 0: use at least 1"),
    ],
)
def test_models_that_cannot_be(options: dict[str, object], message: str):
    with pytest.raises(BadField, match=message):
        BeliefModel(**options)  # type: ignore[arg-type]
    with pytest.raises(BadField, match="an observation has 2 numbers"):
        BeliefModel(levels=(5,)).init(SPEC, seeded())
