"""PEARL: its posterior against conjugate updates, what its gradients reach, and its runs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pearl_checks import SMALL, SPEC, experience
from run_checks import run_quietly
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.utils._pytree import tree_leaves, tree_map

import metarl
from metarl.algorithms import task_replay
from metarl.algorithms.pearl import PEARLState, Posterior
from metarl.algorithms.task_replay import Transition
from metarl.deploy.export import step_of
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.evaluate import held_out_tasks
from metarl.rollout import nothing_before, rollout
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.types import Experience

pytestmark = pytest.mark.usefixtures("one_thread")
HALF_CIRCLE = find_preset("half_circle", "pearl")
TINY = Experiment(
    task=HALF_CIRCLE,
    learner=replace(SMALL, num_slots=80, capacity=200, critic_reward="distance", context="all"),
    num_tasks=3,
    num_envs=2,
    episodes=2,
    iterations=4,
    eval_interval=1,
    eval_tasks=4,
    checkpoint_interval=2,
    num_threads=1,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the posterior


def by_kalman(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Conjugate updates one after the other, the first factor as the prior: m' = m + K (x - m), v' = (1 - K) v."""
    m, v = mean[0], variance[0]
    for x, noise in zip(mean[1:], variance[1:], strict=True):
        gain = v / (v + noise)
        m, v = m + gain * (x - m), (1 - gain) * v
    return m, v


@pytest.mark.usefixtures("float64")
def test_the_product_of_gaussians_is_the_conjugate_posterior():
    """An encoder without hidden layers: action 0 becomes the mean, 4 softplus(action 1) the variance of a factor."""
    pearl = replace(SMALL, latent_size=1, encoder_sizes=(), context_size=4)
    weight = torch.zeros(5, 2)  # obs, obs, action, action, reward -> mean, raw variance
    weight[2, 0] = weight[3, 1] = 1.0
    params = {"encoder/weight_0": weight, "encoder/bias_0": torch.zeros(1, 2)}
    action, other = torch.randn(1, 40, 2, generator=seeded()), torch.zeros(1, 40, 2)
    context = Transition(other, action, other[..., 0], other, other[..., 0] > 0)
    posterior = pearl.infer(params, context)
    mean, variance = by_kalman(action[0, :, 0], 4 * torch.nn.functional.softplus(action[0, :, 1]))
    assert posterior.mean.item() == pytest.approx(mean.item(), rel=1e-10)
    assert posterior.variance.item() == pytest.approx(variance.item(), rel=1e-10)


def test_the_order_of_a_context_and_how_it_is_cut_are_irrelevant():
    state, batch = SMALL.init(SPEC, seeded()), experience([1.0, -2.0], num_envs=4, time=5)
    actor = SMALL.actor(state, 2)
    whole = SMALL.adapt(state, actor, batch).posterior
    shuffled = tree_map(lambda x: x[:, torch.tensor([2, 0, 3, 1])][:, :, torch.tensor([4, 1, 0, 3, 2])], batch)
    torch.testing.assert_close(SMALL.adapt(state, actor, shuffled).posterior, whole, rtol=1e-6, atol=1e-6)
    first = SMALL.adapt(state, actor, tree_map(lambda x: x[:, :1], batch))
    both = SMALL.adapt(state, first, tree_map(lambda x: x[:, 1:], batch))
    torch.testing.assert_close(both.posterior, whole, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(whole.mean[0], whole.mean[1]), "the tasks cannot be told apart"


def test_steps_that_are_not_valid_say_nothing():
    state, batch = SMALL.init(SPEC, seeded()), experience([1.0])
    actor = SMALL.actor(state, 1)
    spoiled = batch._replace(valid=batch.valid.clone(), obs=batch.obs.clone())
    spoiled.valid[0, 1], spoiled.obs[0, 1] = False, 100.0
    alone = tree_map(lambda x: x[:, :1], batch)
    expected = SMALL.adapt(state, actor, alone).posterior
    torch.testing.assert_close(SMALL.adapt(state, actor, spoiled).posterior, expected)
    nothing = SMALL.adapt(state, actor, batch._replace(valid=torch.zeros_like(batch.valid))).posterior
    assert nothing.mean.eq(0).all()
    assert nothing.variance.eq(1).all(), "without any context the posterior is the prior"


def test_the_bottleneck_is_the_divergence_from_the_prior():
    posterior = Posterior(torch.tensor([[4.0, 0.5], [1.0, 2.0]]), torch.tensor([[2.0, -1.0], [0.0, 3.0]]))
    ours = Normal(posterior.mean, posterior.variance.sqrt())
    expected = kl_divergence(ours, Normal(torch.zeros(2), torch.ones(2))).sum(-1)
    torch.testing.assert_close(posterior.kl_from_prior(), expected)


# --- acting


def test_every_episode_draws_a_task_and_keeps_it():
    env = HALF_CIRCLE.make(2, 500, seed=0)
    env.set_tasks(HALF_CIRCLE.sample(2, seeded()))
    state, drawn = SMALL.init(env.spec, seeded()), []

    def act(actor, obs, previous, generator):
        action, dist, actor = SMALL.act(actor, obs, previous, generator)
        drawn.append(actor.latent)
        return action, dist, actor

    _, actor = rollout(env, act, SMALL.actor(state, 2), 2, seeded())
    latent = torch.stack(drawn)
    assert latent[:20].eq(latent[0]).all(), "z changes within an episode"
    assert latent[20:].eq(latent[20]).all()
    assert latent[0].ne(latent[20]).all(), "the second episode acts by the first one's z"
    assert latent[0].mean().abs() < 4 / math.sqrt(3000)
    assert latent[0].std() == pytest.approx(1, abs=0.06), "z of a new task is not drawn from the prior"
    adapted = SMALL.adapt(state, actor, experience([1.0, 5.0]))
    obs = torch.zeros(2, 2000, 2)
    _, _, acting = SMALL.act(adapted, obs, nothing_before(obs, 2), seeded(1))
    assert acting.latent is not None
    torch.testing.assert_close(acting.latent.mean(1), adapted.posterior.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(acting.latent.std(1), adapted.posterior.variance.sqrt(), rtol=0.1, atol=0)


def test_an_exported_policy_acts_by_the_mean_of_the_posterior():
    state = SMALL.init(SPEC, seeded())
    agent = metarl.TrainedAgent(SMALL, state, HALF_CIRCLE, "cpu", {})
    actor = SMALL.adapt(state, SMALL.actor(state, 1), experience([5.0]))
    step = step_of(agent, actor, None)
    obs = torch.tensor([[0.3, -0.2]])
    expected = SMALL.networks.policy(state.meta, torch.cat([obs, actor.posterior.mean], dim=1)).mode()
    torch.testing.assert_close(step(**(step.first | {"obs": obs}))["action"], expected)


# --- the update


TASKS = torch.tensor([[0.5, 1.0], [2.0, 0.0]])


def brought(rounds: int = 1) -> Experience:
    return Experience(TASKS, None, [experience([1.0, -1.0])] * rounds)


@pytest.mark.usefixtures("float64")
def test_the_critics_and_the_bottleneck_train_the_encoder_and_the_policy_does_not():
    """By finite differences, without a target that depends on z (discount 0)."""
    pearl = replace(SMALL, discount=0.0)
    state = pearl.init(SPEC, seeded())
    params = {name: value.double().requires_grad_() for name, value in state.meta.items()}
    slow = {name: value.double() for name, value in state.slow.items()}
    batches = [tree_map(lambda x: x.double() if x.is_floating_point() else x, experience([1.0, -1.0]))]
    filled = task_replay.remember(state.replay, state.slots, TASKS, batches, inferring=1, update=1)
    loss, _ = pearl.loss(params, slow, *filled, seeded(3))
    gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))

    def trained(moved: dict[str, Tensor]) -> float:
        _, terms = pearl.loss(moved, slow, *filled, seeded(3))
        return (terms["critic_loss"] + pearl.kl_weight * pearl.meta_batch * terms["kl_from_prior"]).item()

    for name in ("encoder/weight_0", "encoder/bias_1"):
        step = torch.randn(params[name].shape, generator=seeded(4))
        up, down = (params | {name: params[name].detach() + h * step} for h in (1e-6, -1e-6))
        assert (trained(up) - trained(down)) / 2e-6 == pytest.approx((gradient[name] * step).sum().item(), rel=1e-5)
    assert all(slope.abs().sum() > 0 for slope in gradient.values())


def test_the_critics_can_learn_from_the_distance_to_the_task():
    pearl = replace(SMALL, critic_reward="distance", reward_scale=10.0)
    batch, goal = experience([1.0]), torch.tensor([[0.5, 1.0]])
    steps = Transition(*(x.flatten(1, 2) for x in task_replay.transitions(batch)))
    reward = pearl.transitions(steps, None, goal).reward
    torch.testing.assert_close(reward[0], -10 * (batch.next_obs[0].flatten(0, 1) - goal).norm(dim=1))
    with pytest.raises(BadField, match="critic_reward is 'distance'"):
        pearl.transitions(steps, None, torch.zeros(1, 1))


def test_an_update_is_a_function_of_state_experience_and_generator():
    def updated(seed: int) -> tuple[PEARLState, PEARLState]:
        state = SMALL.init(SPEC, seeded())
        return state, SMALL.update(state, brought(2), seeded(seed))[0]

    (before, one), (_, two), (_, other) = (updated(seed) for seed in (1, 1, 2))
    for name in ("meta", "optimizer", "slow", "slots"):
        for a, b in zip(tree_leaves(getattr(one, name)), tree_leaves(getattr(two, name)), strict=True):
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    assert not torch.equal(one.meta["policy/weight_0"], other.meta["policy/weight_0"])
    assert all(torch.equal(x, SMALL.init(SPEC, seeded()).meta[name]) for name, x in before.meta.items()), "in place"
    again, said = SMALL.update(one, brought(), seeded(3))
    assert again.num_updates == 2
    assert said["train/replay_transitions"] == 2 * 18
    assert said["train/replay_tasks"] == 2


def test_gradient_steps_wait_for_the_first_pool_of_data():
    pearl = replace(SMALL, warmup_steps=20)
    state = pearl.init(SPEC, seeded())
    waiting, said = pearl.update(state, brought(), seeded())
    assert waiting.meta is state.meta
    assert said == {"train/replay_tasks": 2.0, "train/replay_transitions": 12.0}
    learning, _ = pearl.update(waiting, brought(), seeded())
    assert not torch.equal(learning.meta["policy/weight_0"], state.meta["policy/weight_0"])


def test_without_adaptation_it_is_soft_actor_critic_without_a_latent_variable():
    alone = SMALL.without_adaptation()
    state = alone.init(SPEC, seeded())
    assert not [name for name in state.meta if name.startswith("encoder")]
    assert state.meta["policy/weight_0"].shape == (2, 8)
    state, _ = alone.update(state, brought(), seeded())
    actor = alone.adapt(state, alone.actor(state, 2), brought().batches[0])
    action, _, _ = alone.act(actor, torch.zeros(2, 3, 2), nothing_before(torch.zeros(2, 3, 2), 2), seeded())
    assert action.shape == (2, 3, 2)
    adapting = SMALL.adapt(state, SMALL.actor(state, 2), brought().batches[0])  # as tables of results compare them
    same, _, _ = SMALL.act(adapting, torch.zeros(2, 3, 2), nothing_before(torch.zeros(2, 3, 2), 2), seeded())
    assert torch.equal(same, action)
    assert alone.describe().name == "SAC on all tasks"
    with pytest.raises(BadField, match="adapt_steps is 1"):
        replace(SMALL, latent_size=0)


def test_a_learned_temperature_follows_the_entropy():
    """An untrained policy's entropy is above minus two: the temperature falls."""
    pearl = replace(SMALL, temperature=None, gradient_steps=5, learning_rate=1e-2)
    state = pearl.init(SPEC, seeded())
    state, said = pearl.update(state, brought(), seeded())
    assert said["train/policy_entropy"] > -2
    assert -0.06 < state.meta["log_temperature"].item() < -0.04


def test_discrete_actions_are_refused():
    with pytest.raises(BadField, match="discrete"):
        SMALL.init(EnvSpec(2, 2, 3, terminates=False, has_success=False, discrete=True), seeded())


# --- its runs


def end_of(run: Path) -> dict[str, object]:
    return checkpoint.load(run / checkpoint.DIRECTORY / "iteration_00000004.ckpt")


def test_a_run_resumes_with_every_bit_and_its_replay_holds_training_tasks_alone(tmp_path: Path):
    run_quietly(TINY, create_run(TINY, tmp_path, "whole"))
    resumed = create_run(TINY, tmp_path, "half")
    for iterations in (2, 4):
        run_quietly(replace(TINY, iterations=iterations), resumed)
    whole, half = end_of(tmp_path / "whole"), end_of(resumed)
    for a, b in zip(tree_leaves(whole), tree_leaves(half), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    learned = metarl.load(tmp_path / "whole")  # without its replay
    assert isinstance(learned.state, PEARLState)
    slots, added = learned.state.slots, whole["learner"]["replay"]["added"]  # type: ignore[index]
    met = slots.parameters()[slots.met > 0]
    assert 3 < len(met) <= 12
    assert added[slots.met == 0].eq(0).all()
    assert added.sum() == 4 * 3 * 2 * 2 * 20
    held_out = held_out_tasks(HALF_CIRCLE, 20)
    assert (met[:, None] - held_out).norm(dim=-1).min() > 0.01, "the replay has experience of a held-out task"
