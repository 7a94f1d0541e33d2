"""ProMP against MAML where they must agree, and against its objective written out task by task."""

import io
from dataclasses import replace
from functools import partial

import pytest
import torch
from maml_checks import SPEC, hand_written_policy, meta_batch, moved, relative_error
from torch import Tensor
from update_checks import meta_update

from metarl.algorithms.maml import MAML, MAMLState
from metarl.algorithms.outer import PPO
from metarl.algorithms.promp import ProMP, ProMPState, adapted_penalty
from metarl.losses.optim import flatten
from metarl.losses.policy_gradient import clipped_ratio_loss, ratio_loss
from metarl.networks.mlp import GaussianMLP
from metarl.types import Params, TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")

POLICY = GaussianMLP((3, 3), "tanh")
NO_PENALTY = ProMP(policy=POLICY, inner_lr=0.2, kl_penalty=0.0)


def state_of(learner: ProMP, meta: Params, *eta: float) -> ProMPState:
    return ProMPState(meta, {}, torch.tensor(eta, dtype=torch.float64))


@pytest.mark.parametrize("num_steps", [1, 2])
def test_without_penalty_its_first_gradient_is_that_of_maml_with_low_variance_curvature(num_steps: int):
    learner = replace(NO_PENALTY, adapt_steps=num_steps)
    meta, batches = meta_batch(learner)
    loss = partial(clipped_ratio_loss, clip=0.3)
    gradient, _ = learner.problem(state_of(learner, meta, *[0.0] * num_steps), batches).gradient(meta, loss)

    def of_maml(estimator: str) -> Tensor:
        maml = MAML(policy=POLICY, inner_lr=0.2, adapt_steps=num_steps, estimator=estimator)
        return flatten(maml.problem(batches).gradient(meta, ratio_loss)[0])

    assert relative_error(flatten(gradient), of_maml("lvc")) < 1e-12
    assert relative_error(flatten(gradient), of_maml("maml")) > 1e-3
    assert relative_error(flatten(gradient), of_maml("dice")) > 1e-3


def test_without_inner_steps_it_is_ppo_on_all_tasks_jointly():
    learner = replace(NO_PENALTY, adapt_steps=0, kl_penalty=1.0)
    meta, batches = meta_batch(learner)
    ours, _ = meta_update(learner, state_of(learner, meta), batches)
    theirs, _ = meta_update(MAML(policy=POLICY, adapt_steps=0, outer=PPO()), MAMLState(meta, {}), batches)
    assert torch.equal(flatten(ours.meta), flatten(theirs.meta))


def hand_written_objective(
    meta: Params, batches: list[TrajectoryBatch], *, inner_lr: float, clip: float, eta: list[float]
) -> Tensor:
    """Algorithm 1 with a Python loop over tasks: ratios to the sampling policy inside, clipped ones outside."""
    losses = []
    for task in range(len(batches[0].reward)):
        phi, penalty = meta, 0.0
        for weight, batch in zip(eta, batches[:-1], strict=True):
            valid, policy = batch.valid[task], hand_written_policy(phi, batch.obs[task])
            ratio = (policy.log_prob(batch.action[task]).sum(-1) - batch.log_prob[task]).exp()
            sampling = torch.distributions.Normal(batch.dist.mean[task], batch.dist.log_std[task].exp())
            kl = torch.distributions.kl_divergence(sampling, policy).sum(-1)[valid].mean()
            penalty = penalty + weight * kl / len(eta)
            loss = -(ratio * batch.advantage[task])[valid].mean()
            gradients = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            phi = {name: phi[name] - inner_lr * g for name, g in zip(phi, gradients, strict=True)}
        post, valid = batches[-1], batches[-1].valid[task]
        log_prob = hand_written_policy(phi, post.obs[task]).log_prob(post.action[task]).sum(-1)
        ratio, advantage = (log_prob - post.log_prob[task]).exp(), post.advantage[task]
        clipped = torch.where(advantage > 0, ratio.clamp(max=1 + clip), ratio.clamp(min=1 - clip)) * advantage
        losses.append(penalty - clipped[valid].mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("eta", [[0.7], [0.7, 0.2]])
def test_the_objective_is_the_papers(eta: list[float]):
    learner = replace(NO_PENALTY, adapt_steps=len(eta))
    meta, batches = meta_batch(learner)
    meta = moved(meta, 0.1)  # ratios beyond the clip, KLs above 0
    loss = partial(clipped_ratio_loss, clip=0.05)
    gradient, value = learner.problem(state_of(learner, meta, *eta), batches).gradient(meta, loss)
    leaves = {name: x.clone().requires_grad_() for name, x in meta.items()}
    expected = hand_written_objective(leaves, batches, inner_lr=0.2, clip=0.05, eta=eta)
    pieces = dict(zip(leaves, torch.autograd.grad(expected, list(leaves.values())), strict=True))
    assert value == pytest.approx(expected.item(), rel=1e-12)
    assert relative_error(flatten(gradient), flatten(pieces)) < 1e-10
    without, _ = learner.problem(state_of(learner, meta, *[0.0] * len(eta)), batches).gradient(meta, loss)
    assert relative_error(flatten(without), flatten(pieces)) > 1e-2


def test_an_update_is_adam_on_that_objective():
    learner = replace(NO_PENALTY, kl_penalty=0.5, outer=PPO(learning_rate=0.02, epochs=4, clip=0.05))
    meta, batches = meta_batch(learner)
    state, metrics = meta_update(learner, state_of(learner, meta, 0.5), batches)
    leaves = {name: value.clone().requires_grad_() for name, value in meta.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.02)
    for _ in range(4):
        adam.zero_grad()
        hand_written_objective(leaves, batches, inner_lr=0.2, clip=0.05, eta=[0.5]).backward()
        adam.step()
    assert relative_error(flatten(state.meta) - flatten(meta), flatten(leaves) - flatten(meta)) < 1e-6
    assert metrics["train/inner_kl"] > 0


def test_a_penalty_holds_theta_back():
    free = replace(NO_PENALTY, outer=PPO(learning_rate=0.02))
    meta, batches = meta_batch(free)
    _, loose = meta_update(free, state_of(free, meta, 0.0), batches)
    _, held = meta_update(free, state_of(free, meta, 30.0), batches)
    assert held["train/inner_kl"] < 0.5 * loose["train/inner_kl"]


def test_eta_is_halved_below_and_doubled_above_the_target():
    """Between target / 1.5 and 1.5 target it stays; each step has its own."""
    eta = torch.tensor([1.0, 1.0, 1.0, 1.0])
    kl = torch.tensor([0.0066, 0.0067, 0.0149, 0.0151])
    assert adapted_penalty(eta, kl, 0.01).tolist() == [0.5, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(("target", "factor"), [(0.0, 1.0), (1e-9, 2.0), (1e9, 0.5)])
def test_an_update_moves_eta_where_a_target_is_given(target: float, factor: float):
    learner = replace(NO_PENALTY, target_kl=target)
    meta, batches = meta_batch(learner)
    state, _ = meta_update(learner, state_of(learner, meta, 0.25), batches)
    assert state.kl_penalty.tolist() == [0.25 * factor]


def test_it_continues_from_its_saved_state():
    learner = replace(NO_PENALTY, target_kl=1e9, learn_inner_lr=True)
    meta, batches = meta_batch(learner)
    once, _ = meta_update(learner, state_of(learner, meta, 0.1), batches)
    file = io.BytesIO()
    torch.save(once._asdict(), file)
    restored = ProMPState(**torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    straight, _ = meta_update(learner, once, batches)
    resumed, _ = meta_update(learner, restored, batches)
    assert torch.equal(flatten(straight.meta), flatten(resumed.meta))
    assert torch.equal(straight.kl_penalty, resumed.kl_penalty)


def test_it_starts_with_one_eta_a_step():
    learner = ProMP(policy=POLICY, adapt_steps=3, kl_penalty=0.2)
    assert learner.init(SPEC, torch.Generator()).kl_penalty.tolist() == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("options", [{"kl_penalty": -1.0}, {"target_kl": -1.0}], ids=str)
def test_hyperparameters_without_a_meaning_are_refused_by_name(options: dict):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        ProMP(**options)
