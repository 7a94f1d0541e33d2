"""What the code of Meta-World+ computes, against its formulas written out: the preset ``plus``, row by row.

Read in rainx0r/metaworld-algorithms at commit c3f729e; ``rl/algorithms/{mamltrpo,rl2,utils}.py``, ``rl/networks.py``.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from maml_checks import SPEC, hand_written_policy, meta_batch
from rl2_checks import SpyPolicy, play, seeded, trained
from torch import Tensor
from torch.func import vmap
from toy_tasks import Echo
from update_checks import meta_update

from metarl.algorithms.maml import MAML, MAMLState
from metarl.algorithms.promp import ProMP
from metarl.algorithms.rl2 import RL2, RL2State
from metarl.envs.fields import BadField
from metarl.envs.small.bandit import Bandit
from metarl.losses.policy_gradient import ratio_loss
from metarl.losses.trials import chunks
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline
from metarl.presets import make
from metarl.runs.experiment import Experiment
from metarl.types import TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")
POLICY = GaussianMLP((3, 3), "tanh")

# --- MAML


@pytest.mark.usefixtures("float64")
def test_an_inner_step_is_of_the_mean_over_the_meta_batch() -> None:
    """One loss for all tasks, -mean(log pi A) with A = (A - mean) / (variance + 1e-8) of each; a step of 0.1 on it is
    the preset's step of 0.1 / their number, whatever number of tasks adapts at a time."""
    preset = make("ml10", "maml", "plus")
    learner = replace(preset.learner, policy=POLICY)
    meta, (batch, _) = meta_batch(learner, num_tasks=preset.num_tasks)
    batch = batch._replace(valid=torch.ones_like(batch.valid))
    raw, _ = learner.raw_advantage(batch)
    theirs = np.stack([(a - a.mean()) / (a.var() + 1e-8) for a in raw.numpy()])
    batch = learner.credit(MAMLState(meta, {}), batch)
    np.testing.assert_allclose(batch.advantage.numpy(), theirs, rtol=1e-6)

    leaves = {name: value.expand(20, *value.shape).clone().requires_grad_() for name, value in meta.items()}
    log_prob = vmap(lambda p, obs, act: hand_written_policy(p, obs).log_prob(act).sum(-1))(
        leaves, batch.obs, batch.action
    )
    loss = -(log_prob * torch.from_numpy(theirs)).mean()  # over tasks, worlds and time
    gradient = torch.autograd.grad(loss, list(leaves.values()))
    actor = learner.actor(MAMLState(meta, {}), 20)
    phi = learner.adapt(MAMLState(meta, {}), actor, batch)
    for (name, leaf), g in zip(leaves.items(), gradient, strict=True):
        torch.testing.assert_close(phi[name], (leaf - 0.1 * g).detach(), rtol=1e-6, atol=1e-9)
    alone = {name: value[:1] for name, value in actor.items()}
    one = learner.adapt(MAMLState(meta, {}), alone, TrajectoryBatch(*(_first(x) for x in batch)))
    assert all(torch.allclose(one[name][0], phi[name][0]) for name in one)


def _first(x: Tensor | tuple) -> Tensor | tuple:
    return x[:1] if isinstance(x, Tensor) else type(x)(*(leaf[:1] for leaf in x))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("learner", [MAML(POLICY), ProMP(POLICY)])
def test_weights_of_1_by_sd_are_those_of_the_variance_and_leave_the_inner_step(learner: MAML | ProMP) -> None:
    _, batches = meta_batch(MAML(POLICY))
    scale = torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1)
    state = MAMLState({}, {})
    scaled = [batch._replace(reward=scale * batch.reward) for batch in batches]
    equal = [learner.credit(state, batch) for batch in scaled]
    over_variance = [replace(learner, advantage_scale="variance").credit(state, batch) for batch in scaled]
    pre, post = replace(learner, task_weights="inverse_std").weighted(equal)
    assert torch.equal(pre.advantage, equal[0].advantage)
    torch.testing.assert_close(post.advantage, over_variance[1].advantage, rtol=1e-5, atol=0)
    sds = post.advantage.flatten(1).norm(dim=1) / equal[1].advantage.flatten(1).norm(dim=1)
    assert sds[2] > 5 * sds[0] > 25 * sds[1]
    assert learner.weighted(equal) is equal


def test_the_outer_gradient_is_the_weighted_sum_of_the_tasks() -> None:
    learner = MAML(POLICY, task_weights="inverse_std")
    meta, batches = meta_batch(learner)
    gradient, loss = learner.problem(batches).gradient(meta, ratio_loss)
    parts, total = [], 0.0
    for task in range(3):
        one = [TrajectoryBatch(*(_nth(x, task) for x in batch)) for batch in batches]
        raw = learner.raw_advantage(one[-1])[0][one[-1].valid]
        weight = 1 / raw.std(correction=0).item()
        found, value = replace(learner, task_weights="equal").problem(one).gradient(meta, ratio_loss)
        parts.append({name: weight * g / 3 for name, g in found.items()})
        total += weight * value / 3
    assert loss == pytest.approx(total, rel=1e-5)
    for name, g in gradient.items():
        torch.testing.assert_close(g, sum(part[name] for part in parts), rtol=1e-5, atol=1e-8)
    with pytest.raises(BadField, match="task_weights is 'inverse_std': E-MAML's"):
        MAML(estimator="emaml", task_weights="inverse_std")


def _nth(x: Tensor | tuple, task: int) -> Tensor | tuple:
    return x[task : task + 1] if isinstance(x, Tensor) else type(x)(*(leaf[task : task + 1] for leaf in x))


@pytest.mark.parametrize(("benchmark", "tasks"), [("ml1", 10), ("ml10", 20), ("ml45", 45)])
def test_the_presets_are_the_published_ones(benchmark: str, tasks: int) -> None:
    maml, rl2 = make(benchmark, "maml", "plus"), make(benchmark, "rl2", "plus")
    budget = {"ml1": 2e6, "ml10": 20e6, "ml45": 90e6}[benchmark]
    per_update = tasks * 10 * 500
    assert (maml.num_tasks, rl2.num_tasks) == (tasks, tasks)
    assert maml.iterations * 2 * per_update == rl2.iterations * per_update == budget
    assert maml.learner.inner_lr == 0.1 / tasks
    assert maml.learner.outer.curvature_samples == per_update
    assert (maml.learner.gae_lambda, maml.learner.discount, maml.learner.policy.min_std) == (1.0, 0.99, 1e-6)
    trial = torch.zeros(1, 1, rl2.episodes_per_env * 500)
    steps = list(chunks(trial.unsqueeze(-1), played(trial), steps=250, overlap=50))
    assert len(steps) * rl2.learner.epochs == 240
    assert (rl2.learner.chunk_steps, rl2.learner.chunk_overlap, rl2.learner.learning_rate) == (250, 50, 5e-4)


# --- RL²


def test_the_head_is_a_tanh_of_mean_and_log_standard_deviation() -> None:
    policy = RecurrentPolicy(memory_size=8, head="tanh")
    params = policy.init(SPEC, seeded())
    assert "log_std" not in params
    assert params["policy.weight"].shape == (4, 8)
    params = {name: x + 5 * torch.randn(x.shape, generator=seeded(1)) for name, x in params.items()}
    inputs = torch.randn(3, 7, 6, generator=seeded(2))
    dist, _, _ = policy(params, inputs, policy.empty_memory(3, torch.device("cpu")))
    weights = [params[f"memory.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    cell = torch.nn.GRU(6, 8, batch_first=True)
    for own, weight in zip(cell.parameters(), weights, strict=True):
        own.data.copy_(weight)
    out = torch.tanh(cell(inputs)[0] @ params["policy.weight"].T + params["policy.bias"])
    torch.testing.assert_close(dist.mean, out[..., :2].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dist.log_std, out[..., 2:].detach(), rtol=1e-4, atol=1e-5)
    assert dist.log_std.abs().max() > 0.99, "the bounds are reached: sd between .37 and 2.7"
    floored, _, _ = replace(policy, min_std=0.9)(params, inputs, policy.empty_memory(3, torch.device("cpu")))
    assert floored.log_std.exp().min() == pytest.approx(0.9)
    with pytest.raises(BadField, match="head is 'tanh': the task has discrete actions"):
        Experiment(Bandit(), RL2(policy))


LEARNER = RL2(
    policy=RecurrentPolicy(memory_size=4, head="tanh"),
    baseline=LinearFeatureBaseline(),
    baseline_per="trial",
    reward_scale=0.1,
    hide_ends=True,
    advantage_scale="raw",
    learning_rate=0.01,
    epochs=3,
    chunk_steps=5,
    chunk_overlap=2,
    entropy_bonus=5e-3,
    max_grad_norm=0.05,
)
TASK = Echo(horizon=3, pay=1e-2, discrete=False)  # observes its own episode and step
ENDLESS = torch.tensor([9.0, 9.0, 9.0])  # no episode ends before the horizon


def experience(learner: RL2, *, episodes: int = 4, num_envs: int = 2) -> tuple[RL2State, TrajectoryBatch]:
    state = trained(learner, TASK.spec)._replace(optimizer={})
    return state, play(learner, TASK, state, num_envs=num_envs, episodes=episodes, task=ENDLESS)


def test_the_ends_of_episodes_are_hidden_alike_as_it_acts_and_as_it_learns() -> None:
    learner = replace(LEARNER, policy=SpyPolicy(memory_size=4, head="tanh"))
    state, batch = experience(learner)
    seen = torch.stack(learner.policy.inputs_seen).squeeze(2)  # [time world in]
    for t in range(12):
        fed, expected = seen[t, :, 2:], torch.zeros(6, 4)
        if t % 3:
            action, reward = batch.action[:, :, t - 1].flatten(0, 1), 0.1 * batch.reward[:, :, t - 1].flatten(0, 1)
            expected = torch.cat([action, reward.unsqueeze(-1), torch.zeros(6, 1)], dim=-1)
        assert torch.equal(fed, expected)
    said = learner.replay(state, batch).dist
    torch.testing.assert_close(said.log_prob(batch.action), batch.log_prob, rtol=1e-4, atol=1e-4)
    shown = replace(learner, hide_ends=False).replay(state, batch).dist  # negative control
    assert (shown.log_prob(batch.action) - batch.log_prob).abs().max() > 1e-2


@pytest.mark.usefixtures("float64")
def test_raw_advantages_are_of_a_least_squares_fit_of_each_trial_to_what_is_fed() -> None:
    """Features [x, x^2, t/100, (t/100)^2, (t/100)^3, 1] of x = observation, action, a tenth of the reward, 0; t is the
    trial's; ridge 1e-5; values cross the ends of episodes and end with the trial."""
    learner = replace(LEARNER, discount=0.9, gae_lambda=0.8)
    state, batch = experience(learner, episodes=10)
    credited = learner.credit(state, batch)
    found = np.zeros((3, 2, 30))
    for i, j in np.ndindex(3, 2):
        rewards = batch.reward[i, j].double().numpy()
        before = torch.cat([batch.action[i, j], 0.1 * batch.reward[i, j].unsqueeze(-1)], dim=-1).roll(1, dims=0)
        before[::3] = 0.0  # where an episode begins nothing is fed
        x = np.concatenate([batch.obs[i, j], before, np.zeros((30, 1))], axis=1).clip(-10, 10)
        t = np.arange(30)[:, None] / 100
        features = np.concatenate([x, x**2, t, t**2, t**3, np.ones_like(t)], axis=1)
        returns = np.zeros(31)
        for k in reversed(range(30)):
            returns[k] = rewards[k] + 0.9 * returns[k + 1]
        ridge = features.T @ features + 1e-5 * np.eye(features.shape[1])
        value = np.append(features @ np.linalg.solve(ridge, features.T @ returns[:30]), 0.0)
        later = 0.0
        for k in reversed(range(30)):
            later = rewards[k] + 0.9 * value[k + 1] - value[k] + 0.72 * later
            found[i, j, k] = later
    scale = np.abs(found).max()
    np.testing.assert_allclose(credited.advantage.numpy(), found, rtol=1e-3, atol=1e-3 * scale)
    one_fit = replace(learner, baseline_per="batch").credit(state, batch).advantage.numpy()  # negative control
    assert np.abs(one_fit - found).max() > 0.1 * scale
    unscaled = replace(learner, reward_scale=1.0, baseline=LinearFeatureBaseline(), baseline_per="batch")
    np.testing.assert_allclose(unscaled.credit(state, batch).advantage.numpy(), one_fit, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("memory", ["gru", "lstm", "attention"])
def test_an_update_is_a_step_for_each_overlapping_chunk(memory: str) -> None:
    """Written out: chunks of 5 steps from 0, 3 and 6 of 12; each begins with the memory after 3 steps of the one
    before, as the policy had it before that step; clipped surrogate and entropy, norm 0.05, Adam of 0.01 and eps 1e-5.
    Each of 3 epochs begins with an empty memory, and nobody learns from the last step."""
    learner = replace(LEARNER, policy=RecurrentPolicy(memory, memory_size=4, head="tanh"))
    state, batch = experience(learner)
    batch = learner.credit(state, batch)
    updated, metrics = meta_update(learner, state, [batch])
    assert updated.optimizer["state"][0]["step"] == 9

    policy = learner.policy
    leaves = {name: value.clone().requires_grad_() for name, value in state.meta.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.01, eps=1e-5)
    inputs = learner._trial_inputs(state, batch).flatten(0, 1)
    old, advantage, action = (x.flatten(0, 1) for x in (batch.log_prob, batch.advantage, batch.action))
    entropies = []
    for _ in range(3):
        carried = policy.empty_memory(6, torch.device("cpu"))
        for start in (0, 3, 6):
            middle = slice(start, start + 5)
            dist = policy(leaves, inputs[:, middle], carried).dist  # in one go: gradients flow through all of it
            normal = torch.distributions.Normal(dist.mean, dist.log_std.exp())
            with torch.no_grad():
                carried = policy(leaves, inputs[:, start : start + 3], carried).memory
            ratio = (normal.log_prob(action[:, middle]).sum(-1) - old[:, middle]).exp()
            a = advantage[:, middle]
            surrogate = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a).mean()
            entropies.append(normal.entropy().sum(-1).mean().item())
            adam.zero_grad()
            (-surrogate - 5e-3 * normal.entropy().sum(-1).mean()).backward()
            torch.nn.utils.clip_grad_norm_(leaves.values(), 0.05)
            adam.step()
    for name, leaf in leaves.items():
        torch.testing.assert_close(updated.meta[name], leaf.detach(), rtol=1e-7, atol=1e-9)
    assert metrics["train/entropy"] == pytest.approx(np.mean(entropies))
    whole, _ = meta_update(
        replace(learner, chunk_steps=0, chunk_overlap=0, epochs=9), state, [batch]
    )  # negative control
    assert max((whole.meta[name] - leaf).abs().max().item() for name, leaf in leaves.items()) > 1e-4


def played(x: Tensor) -> TrajectoryBatch:
    """A batch of which nothing but its length matters."""
    never = torch.zeros_like(x, dtype=torch.bool)
    flat, numbers = x.unsqueeze(-1), torch.zeros_like(x, dtype=torch.int64)
    return TrajectoryBatch(flat, flat, x, never, never, numbers, never, ~never, x, flat, flat, x, x)


@pytest.mark.parametrize(
    ("num_steps", "steps", "overlap", "starts"),
    [
        (12, 5, 2, [0, 3, 6]),
        (11, 5, 2, [0, 3, 6]),
        (10, 5, 2, [0, 3]),
        (4, 5, 2, [0]),
        (10, 5, 0, [0, 5]),
        (10, 0, 0, [0]),
    ],
)
def test_the_starts_of_chunks(num_steps: int, steps: int, overlap: int, starts: list[int]) -> None:
    clock = torch.arange(num_steps, dtype=torch.float32).expand(1, 1, -1)
    found = list(chunks(clock.unsqueeze(-1), played(clock), steps=steps, overlap=overlap))
    assert [chunk.reward[0, 0, 0] for _, chunk in found] == starts
    for inputs, chunk in found:
        assert torch.equal(inputs[..., 0], chunk.reward)
        assert chunk.reward.shape[-1] == (min(steps, num_steps) or num_steps)


def test_chunks_that_no_trial_lasts_to_are_left_out() -> None:
    batch = played(torch.zeros(1, 2, 12))
    valid = batch.valid.clone()
    valid[..., 6:] = False
    found = list(chunks(batch.obs, batch._replace(valid=valid), steps=5, overlap=2))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chunk_steps": 5, "chunk_overlap": 5}, "chunk_overlap is 5: use less than chunk_steps"),
        ({"chunk_overlap": 1}, "chunk_overlap is 1: use less than chunk_steps"),
        ({"chunk_steps": 5, "bptt_steps": 2}, "bptt_steps is 2: use 0 with chunk_steps"),
        ({"chunk_steps": -1}, "chunk_steps is -1"),
    ],
)
def test_chunks_without_a_meaning_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(BadField, match=said):
        RL2(**options)


def test_the_standard_deviation_of_states_is_reported() -> None:
    state, batch = experience(LEARNER)
    _, metrics = meta_update(LEARNER, state, [LEARNER.credit(state, batch)])
    assert metrics["train/policy_std"] == pytest.approx(batch.dist.log_std.exp().mean().item(), rel=1e-5)
    assert math.exp(-1) < metrics["train/policy_std"] < math.e
