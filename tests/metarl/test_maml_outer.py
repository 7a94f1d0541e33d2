"""MAML's outer steps: TRPO, PPO and Adam against written-out ones."""

import copy
import io
import math
from collections.abc import Callable

import pytest
import torch
from maml_checks import (
    NUM_TASKS,
    hand_written_meta_loss,
    hand_written_policy,
    meta_batch,
    relative_error,
)
from torch import Tensor
from torch.func import grad, jacrev
from torch.utils._pytree import tree_map
from update_checks import meta_update

from metarl.algorithms.maml import MAML, MAMLState
from metarl.algorithms.meta_gradient import MAMLProblem
from metarl.algorithms.outer import PPO, TRPO, Gradient
from metarl.losses.optim import flatten, unflatten
from metarl.losses.policy_gradient import ratio_loss
from metarl.networks.mlp import GaussianMLP
from metarl.types import Params, TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")


def hand_written_trpo_step(meta: Params, batch: TrajectoryBatch, trpo: TRPO) -> tuple[Params, int]:
    """Schulman et al. 2015 for one policy on all tasks: explicit Fisher matrix, conjugate gradients, line search."""
    flat = torch.cat([x.flatten() for x in meta.values()])

    def policy(vector: Tensor) -> torch.distributions.Normal:
        pieces = vector.split([x.numel() for x in meta.values()])
        params = {name: p.view(x.shape) for p, (name, x) in zip(pieces, meta.items(), strict=True)}
        return hand_written_policy(params, batch.obs)

    def loss(vector: Tensor) -> Tensor:
        ratio = (policy(vector).log_prob(batch.action).sum(-1) - batch.log_prob).exp()
        gain = (ratio * batch.advantage * batch.valid).flatten(1).sum(1) / batch.valid.flatten(1).sum(1)
        return -gain.mean()

    def divergence(vector: Tensor) -> Tensor:
        kl = torch.distributions.kl_divergence(policy(flat), policy(vector)).sum(-1) * batch.valid
        return (kl.flatten(1).sum(1) / batch.valid.flatten(1).sum(1)).mean()

    gradient = grad(loss)(flat)
    fisher = jacrev(jacrev(divergence))(flat) + trpo.damping * torch.eye(len(flat))
    x, r, p = torch.zeros_like(gradient), gradient, gradient
    for _ in range(trpo.cg_iterations):
        step = (r @ r) / (p @ fisher @ p)
        x, r_next = x + step * p, r - step * fisher @ p
        p = r_next + (r_next @ r_next) / (r @ r) * p
        r = r_next
    full = math.sqrt(2 * trpo.max_kl / (x @ fisher @ x)) * x
    for k in range(trpo.max_backtracks):
        candidate = flat - trpo.backtrack_ratio**k * full
        if loss(candidate) < loss(flat) and divergence(candidate) <= trpo.max_kl:
            return unflatten(candidate, meta), k
    return meta, trpo.max_backtracks


@pytest.mark.parametrize("max_kl", [0.001, 0.5])  # the second is too far for a quadratic model: it backtracks
def test_maml_without_inner_steps_is_trpo(max_kl: float):
    trpo = TRPO(max_kl=max_kl, cg_iterations=6, damping=1e-3)
    learner = MAML(policy=GaussianMLP((3, 3), "tanh"), adapt_steps=0, outer=trpo)
    meta, (batch,) = meta_batch(learner)
    state, metrics = meta_update(learner, MAMLState(meta, {}), [batch])
    expected, backtracks = hand_written_trpo_step(meta, batch, trpo)
    assert relative_error(flatten(state.meta) - flatten(meta), flatten(expected) - flatten(meta)) < 1e-8
    assert metrics["train/backtracks"] == backtracks < trpo.max_backtracks
    assert metrics["train/loss_after"] < metrics["train/loss_before"]
    assert 0 < metrics["train/kl"] <= max_kl


@pytest.mark.parametrize("max_kl", [0.001, 0.1])
def test_the_kl_after_a_trpo_step_is_within_its_bound_when_computed_again(max_kl: float):
    learner = MAML(policy=GaussianMLP((3, 3), "tanh"), adapt_steps=1, outer=TRPO(max_kl=max_kl))
    meta, batches = meta_batch(learner)
    state, metrics = meta_update(learner, MAMLState(meta, {}), batches)
    kls = []
    for task in range(NUM_TASKS):
        pre, post = (tree_map(lambda x: x[task], batch) for batch in batches)  # noqa: B023
        phi = learner.adapted(state.meta, [pre])
        before = torch.distributions.Normal(post.dist.mean, post.dist.log_std.exp())
        after = hand_written_policy(phi, post.obs)
        kls.append(torch.distributions.kl_divergence(before, after).sum(-1)[post.valid].mean())
    kl = torch.stack(kls).mean().item()
    assert metrics["train/kl"] == pytest.approx(kl, rel=1e-5)
    assert 0.1 * max_kl < kl <= max_kl * (1 + 1e-6)  # used, and kept


@pytest.mark.parametrize("outer", [PPO(learning_rate=3e-3), Gradient(learning_rate=3e-3), TRPO()], ids=str)
@pytest.mark.parametrize("learn_inner_lr", [False, True])
def test_an_outer_step_lowers_the_meta_loss(outer: PPO | Gradient | TRPO, learn_inner_lr: bool):
    learner = MAML(policy=GaussianMLP((3, 3), "tanh"), outer=outer, learn_inner_lr=learn_inner_lr)
    meta, batches = meta_batch(learner)
    before = {name: value.clone() for name, value in meta.items()}
    state, metrics = meta_update(learner, MAMLState(meta, {}), batches)
    problem = MAMLProblem(learner, batches)
    assert problem.gradient(state.meta, ratio_loss)[1] < problem.gradient(before, ratio_loss)[1]
    assert metrics["train/loss_after"] < metrics["train/loss_before"]
    assert all(torch.equal(meta[name], before[name]) for name in meta), "the old parameters were overwritten"
    assert all(not torch.equal(state.meta[name], before[name]) for name in meta), "a parameter never moves"


def test_one_gradient_step_is_adam_along_the_meta_gradient():
    """Adam's first step is learning_rate * g / (|g| + eps): the sign of the meta-gradient, whatever its size."""
    learner = MAML(policy=GaussianMLP((3, 3), "tanh"), outer=Gradient(learning_rate=0.01))
    meta, batches = meta_batch(learner)
    gradient, _ = MAMLProblem(learner, batches).gradient(meta, ratio_loss)
    state, _ = meta_update(learner, MAMLState(meta, {}), batches)
    g = flatten(gradient)
    torch.testing.assert_close(flatten(meta) - flatten(state.meta), 0.01 * g / (g.abs() + 1e-8))


def test_ppo_is_adam_on_the_clipped_loss_of_the_same_meta_batch():
    """Four epochs by hand; steps of .02 leave [.95, 1.05] at once, so an unclipped loss would end elsewhere."""
    learner = MAML(policy=GaussianMLP((3, 3), "tanh"), outer=PPO(learning_rate=0.02, epochs=4, clip=0.05))
    meta, batches = meta_batch(learner)
    state, _ = meta_update(learner, MAMLState(meta, {}), batches)

    def clipped(ratio: Tensor, advantage: Tensor) -> Tensor:
        return -torch.where(advantage > 0, ratio.clamp(max=1.05), ratio.clamp(min=0.95)) * advantage

    ends = []
    for outer in (clipped, lambda ratio, advantage: -ratio * advantage):
        leaves = {name: value.clone().requires_grad_() for name, value in meta.items()}
        adam = torch.optim.Adam(leaves.values(), lr=0.02)
        for _ in range(4):
            adam.zero_grad()
            hand_written_meta_loss(leaves, batches, learner.inner_lr, outer).backward()
            adam.step()
        ends.append(flatten(leaves) - flatten(meta))
    step = flatten(state.meta) - flatten(meta)
    assert relative_error(step, ends[0]) < 1e-6
    assert relative_error(step, ends[1]) > 0.01


@pytest.mark.parametrize("outer", [PPO(), Gradient()], ids=["PPO", "Gradient"])
def test_adam_continues_from_its_saved_state_as_if_never_stopped(outer: PPO | Gradient):
    learner = MAML(policy=GaussianMLP((3,), "tanh"), outer=outer)
    meta, batches = meta_batch(learner)
    once, _ = meta_update(learner, MAMLState(meta, {}), batches)
    file = io.BytesIO()
    torch.save(once._asdict(), file)
    restored = MAMLState(**torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    straight, _ = meta_update(learner, once, batches)
    resumed, _ = meta_update(learner, restored, batches)
    forgetful, _ = meta_update(learner, MAMLState(once.meta, {}), batches)
    assert torch.equal(flatten(straight.meta), flatten(resumed.meta))
    assert not torch.equal(flatten(straight.meta), flatten(forgetful.meta)), "the moments play no role"


@pytest.mark.parametrize("outer", [PPO(), Gradient()], ids=["PPO", "Gradient"])
def test_an_update_leaves_the_state_it_started_from_as_it_was(outer: PPO | Gradient):
    """A checkpoint taken before the update, and a skipped update, both hand the old state on."""
    learner = MAML(policy=GaussianMLP((3,), "tanh"), outer=outer)
    meta, batches = meta_batch(learner)
    before, _ = meta_update(learner, MAMLState(meta, {}), batches)
    kept = copy.deepcopy(before)
    meta_update(learner, before, batches)
    for old, now in zip(torch_leaves(kept), torch_leaves(before), strict=True):
        assert torch.equal(old, now)


def torch_leaves(state: object) -> list[Tensor]:
    leaves: list[Tensor] = []
    tree_map(lambda x: leaves.append(x) if isinstance(x, Tensor) else None, state)
    return leaves


@pytest.mark.parametrize("outer", [TRPO(), PPO(), Gradient()], ids=["TRPO", "PPO", "Gradient"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(outer: TRPO | PPO | Gradient, bad: float):
    learner = MAML(policy=GaussianMLP((3,), "tanh"), outer=outer)
    meta, batches = meta_batch(learner)
    state, healthy = meta_update(learner, MAMLState(meta, {}), batches)
    assert "train/skipped_updates" not in healthy or healthy["train/skipped_updates"] == 0
    kept = copy.deepcopy(state)
    advantage = batches[-1].advantage.clone()
    advantage[1, 0, 0] = bad  # one step of one task
    broken = [batches[0], batches[-1]._replace(advantage=advantage)]
    after, metrics = meta_update(learner, state, broken)
    assert metrics["train/skipped_updates"] == 1.0
    assert torch_leaves(after)
    for old, now in zip(torch_leaves(kept), torch_leaves(after), strict=True):
        assert torch.equal(old, now)


class BreaksLater:
    """A meta-problem whose gradient is finite once and NaN from then on."""

    def __init__(self) -> None:
        self.calls = 0

    def gradient(self, meta: Params, loss: object) -> tuple[Params, float]:
        self.calls += 1
        value = 1.0 if self.calls == 1 else math.nan
        return {name: torch.full_like(x, value) for name, x in meta.items()}, value

    def evaluate(self, meta: Params, loss: object) -> tuple[float, float]:
        return 0.0, 0.0

    def curvature(self, meta: Params, num_samples: int) -> Callable[[Params], Params]:
        return lambda v: v


def test_an_epoch_that_breaks_takes_the_epochs_before_it_back():
    outer, meta = PPO(epochs=3), {"theta": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    healthy = BreaksLater()
    _, optimizer, _ = PPO(epochs=1).step(healthy, meta, {})
    kept = copy.deepcopy(optimizer)
    after, optimizer_after, metrics = outer.step(BreaksLater(), meta, optimizer)
    assert metrics["train/skipped_updates"] == 1.0
    assert torch.equal(after["theta"], torch.tensor([1.0, 2.0], dtype=torch.float64))
    for old, now in zip(torch_leaves(kept), torch_leaves(optimizer_after), strict=True):
        assert torch.equal(old, now), "Adam's moments are those of an update that was thrown away"
