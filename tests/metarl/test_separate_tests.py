"""Greedy tests after sampled adaptation, and tests in other numbers than adaptation sees."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.envs.fields import BadField
from metarl.envs.small.navigation import Navigation
from metarl.evaluate import held_out_tasks, meta_test
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.reports.evaluate_run import Protocol
from metarl.rollout import rollout
from metarl.runs.experiment import Experiment
from metarl.seeds import stream
from metarl.types import Previous

NUM_TASKS, NUM_ENVS = 3, 4
TASK = Navigation(horizon=12)  # the same start always: actions are the only noise
FAR = torch.tensor([[5.0, 5.0], [-5.0, 5.0], [0.0, -5.0]])  # no episode ends before the horizon


@pytest.mark.parametrize("learner", [MAML(GaussianMLP((4,)), inner_lr=0.5), ESMAML(GaussianMLP((4,)), inner_lr=0.5)])
def test_a_greedy_test_is_the_adapted_policys_mean_after_sampled_adaptation(learner: MAML | ESMAML) -> None:
    state = learner.init(TASK.spec, torch.Generator().manual_seed(0))
    tasks = held_out_tasks(TASK, NUM_TASKS)
    envs = [TASK.make(NUM_TASKS, NUM_ENVS, seed=7) for _ in range(3)]
    found = meta_test(learner, state, envs[0], tasks, scales=[1.0, 0.5], greedy=True, seed=0, tests=envs[1])
    sampled = meta_test(learner, state, TASK.make(NUM_TASKS, NUM_ENVS, seed=7), tasks, scales=[1.0, 0.5], seed=0)
    assert found.returns.shape == sampled.returns.shape == (NUM_TASKS, 3, NUM_ENVS)
    envs[2].set_tasks(tasks)
    generator, actor = stream(0, "meta-test actions"), learner.actor(state, NUM_TASKS)
    for step, scale in enumerate([1.0, 0.5, None]):
        position, earned = envs[2].reset(), torch.zeros(NUM_TASKS, NUM_ENVS)
        for _ in range(TASK.horizon):
            nothing = torch.zeros(NUM_TASKS, NUM_ENVS)
            before = Previous(torch.zeros(NUM_TASKS, NUM_ENVS, 2), nothing, nothing.bool(), nothing.bool(), position)
            _, dist, _ = learner.act(actor, position, before, torch.Generator().manual_seed(1))
            taken = envs[2].step(dist.mean)
            position, earned = taken.obs, earned + taken.reward
        torch.testing.assert_close(found.returns[:, step], earned)
        if scale is not None:
            batch, actor = rollout(envs[2], learner.act, actor, 1, generator)
            torch.testing.assert_close(
                batch.reward.sum(-1), sampled.returns[:, step]
            )  # adaptation saw the sampled row's
            actor = learner.adapt(state, actor, learner.credit(state, batch), scale=scale)


@pytest.mark.parametrize("memory", ["gru", "lstm", "attention", "none"])
def test_a_greedy_episode_of_a_trial_comes_after_sampled_ones_alone(memory: Any) -> None:
    """Against trials of their own for each episode: its first k episodes sampled by the same draws, the next greedy."""
    learner = RL2(RecurrentPolicy(memory=memory, memory_size=8))
    state = learner.init(TASK.spec, torch.Generator().manual_seed(0))
    weights = {name: value + 0.1 * torch.randn_like(value) for name, value in state.meta.items()}  # heads begin at 0
    state = state._replace(meta=weights)
    envs = [TASK.make(NUM_TASKS, NUM_ENVS, seed=7) for _ in range(2)]
    found = meta_test(learner, state, envs[0], FAR, episodes=4, greedy=True, seed=0, tests=envs[1])
    assert found.returns.shape == (NUM_TASKS, 4, NUM_ENVS)
    for sampled in range(4):
        torch.testing.assert_close(
            found.returns[:, sampled], greedy_after(learner, state, sampled), atol=1e-4, rtol=1e-4
        )
    if memory != "none":  # what was sampled before differs from world to world, and is remembered
        assert (found.returns[:, 3].std(-1) > 1e-3).all()
    assert (found.returns[:, 0].std(-1) < 1e-5).all()


def greedy_after(learner: RL2, state: Any, sampled: int) -> Tensor:
    """Returns of the first greedy episode after so many sampled ones."""
    env, clock = TASK.make(NUM_TASKS, NUM_ENVS, seed=7), 0

    def act(*arguments: Any) -> Any:
        nonlocal clock
        action, dist, actor = learner.act(*arguments)
        clock += 1
        return (action if clock <= sampled * TASK.horizon else dist.mode()), dist, actor

    env.set_tasks(FAR)
    batch, _ = rollout(env, act, learner.actor(state, NUM_TASKS), sampled + 1, stream(0, "meta-test actions"))
    return batch.reward[:, :, -TASK.horizon :].sum(-1)


def test_tests_may_be_of_another_number_than_adaptation_sees() -> None:
    learner = MAML(GaussianMLP((4,)), inner_lr=0.5)
    state = learner.init(TASK.spec, torch.Generator().manual_seed(0))
    env, apart = TASK.make(NUM_TASKS, 10, seed=7), TASK.make(NUM_TASKS, 3, seed=8)
    options = {"scales": [1.0], "seed": 0}
    found = meta_test(learner, state, env, FAR, tests=apart, **options)
    assert found.returns.shape == (NUM_TASKS, 2, 3)
    again = meta_test(learner, state, env, FAR, tests=apart, **options)
    assert torch.equal(found.returns, again.returns)
    greedy = meta_test(learner, state, env, FAR, tests=apart, greedy=True, **options)
    assert not torch.equal(found.returns, greedy.returns)
    assert torch.equal(greedy.returns[..., :1].expand_as(greedy.returns), greedy.returns)


def test_the_numbers_of_episodes_are_options() -> None:
    maml = Experiment(TASK, MAML(), num_envs=4, episodes=8)
    assert Protocol().plan(maml)[1] == Protocol().plan(maml).adaptation_episodes == 8
    plan = Protocol(adaptation_episodes=10, episodes=3).plan(maml)
    assert (plan.episodes, plan.adaptation_episodes) == (3, 10)
    rl2 = replace(maml, learner=RL2())
    assert (Protocol().plan(rl2).trial, Protocol().plan(rl2).adaptation_episodes) == (2, 1)
    plan = Protocol(adaptation_episodes=10, episodes=3).plan(rl2)
    assert (plan.trial, plan.episodes, plan.adaptation_episodes) == (11, 3, 10)
    with pytest.raises(BadField, match="adaptation_episodes is 10, steps is 3"):
        Protocol(adaptation_episodes=10, steps=3).plan(rl2)
    with pytest.raises(BadField, match="adaptation_episodes is 0"):
        Protocol(adaptation_episodes=0)


def test_a_protocol_with_other_experience_is_not_the_published_one() -> None:
    papers = Experiment(Navigation.presets["maml2017"], MAML())
    assert Protocol().plan(papers).min_steps == 4000
    for other in (Protocol(adaptation_episodes=40), Protocol(episodes=40)):
        assert other.plan(papers).min_steps == 0
