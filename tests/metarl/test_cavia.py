"""CAVIA (Zintgraf et al. 2019): a context that alone adapts, from zero in every task."""

import pytest
import torch
from maml_checks import NUM_TASKS, SPEC, central_differences, meta_batch, moved, relative_error
from update_checks import meta_update

from metarl.algorithms.maml import MAML, MAMLState
from metarl.algorithms.meta_gradient import LEARNED_RATE
from metarl.algorithms.outer import TRPO
from metarl.algorithms.reptile import Reptile
from metarl.losses.optim import flatten
from metarl.losses.policy_gradient import ratio_loss
from metarl.networks.mlp import CONTEXT, GaussianMLP

pytestmark = pytest.mark.usefixtures("one_thread")

LEARNER = MAML(policy=GaussianMLP((3,), "tanh", context_size=2), inner_lr=0.5)


def test_the_context_alone_adapts_and_is_no_meta_parameter():
    meta, (pre, _) = meta_batch(LEARNER)
    assert CONTEXT not in meta
    theta = LEARNER.actor(MAMLState(meta, {}), NUM_TASKS)
    assert not theta[CONTEXT].any()
    phi = LEARNER.adapt(MAMLState(meta, {}), theta, pre)
    assert all(torch.equal(phi[name], theta[name]) for name in meta)
    assert (phi[CONTEXT] != 0).all()
    assert (phi[CONTEXT][0] - phi[CONTEXT][1]).abs().min() > 1e-4, "the tasks did not adapt apart"


def test_a_context_is_a_shift_of_the_first_layer():
    meta, (pre, _) = meta_batch(LEARNER)
    context = torch.tensor([0.4, -1.3], dtype=torch.float64)
    plain = dict(meta)
    plain["weight_0"] = meta["weight_0"][: SPEC.obs_dim]
    plain["bias_0"] = meta["bias_0"] + context @ meta["weight_0"][SPEC.obs_dim :]
    ours = LEARNER.policy(meta | {CONTEXT: context}, pre.obs)
    theirs = GaussianMLP((3,), "tanh")(plain, pre.obs)
    torch.testing.assert_close(ours.mean, theirs.mean)


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("learn_inner_lr", [False, True])
def test_its_meta_gradient_is_the_slope_of_the_meta_loss(num_steps: int, learn_inner_lr: bool):
    learner = MAML(LEARNER.policy, inner_lr=0.5, adapt_steps=num_steps, learn_inner_lr=learn_inner_lr)
    meta, batches = meta_batch(learner)
    rates = [name for name in meta if name.startswith(LEARNED_RATE)]
    assert rates == ([LEARNED_RATE + CONTEXT] if learn_inner_lr else [])
    meta = moved(meta, 0.05)
    gradient, _ = learner.problem(batches).gradient(meta, ratio_loss)
    assert relative_error(flatten(gradient), central_differences(learner, meta, batches)) < 1e-6


def test_an_update_lowers_the_meta_loss():
    learner = MAML(LEARNER.policy, inner_lr=0.5, outer=TRPO())
    meta, batches = meta_batch(learner)
    state, metrics = meta_update(learner, MAMLState(meta, {}), batches)
    assert state.meta.keys() == meta.keys()
    assert metrics["train/loss_after"] < metrics["train/loss_before"]


def test_contexts_without_a_meaning_are_refused():
    with pytest.raises(ValueError, match="context_size"):
        GaussianMLP(context_size=-1)
    with pytest.raises(ValueError, match="context_size"):
        Reptile(policy=LEARNER.policy)
