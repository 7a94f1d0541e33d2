"""A trained policy in one's own hands adapts and acts as metarl.evaluate's does, bit for bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from toy_tasks import Echo

import metarl
from metarl.agent import TrainedAgent, load
from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.evaluate import adaptation, meta_test
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.rollout import rollout
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.session import execute
from metarl.seeds import stream
from metarl.types import MetaLearner, Params, TrajectoryBatch, remembers

pytestmark = pytest.mark.usefixtures("one_thread")

POLICY = GaussianMLP((8,), init_std=0.5)
GRADIENT: dict[str, MetaLearner] = {
    "maml": MAML(POLICY, adapt_steps=2),
    "learned steps": MAML(POLICY, learn_inner_lr=True),
    "cavia": MAML(replace(POLICY, context_size=3), inner_lr=1.0),
    "promp": ProMP(POLICY),
    "reptile": Reptile(POLICY),
    "es_maml": ESMAML(POLICY),
}
MEMORY: dict[str, MetaLearner] = {
    kind: RL2(policy=RecurrentPolicy(memory=kind, memory_size=8), standardize_reward=kind == "gru")
    for kind in ("gru", "lstm", "attention")
}
TASKS = Navigation(horizon=12)
TASK = torch.tensor([[0.3, -0.4]])


def untrained(learner: MetaLearner, task: TaskDistribution = TASKS) -> TrainedAgent:
    return TrainedAgent(learner, learner.init(task.spec, stream(5, "parameters")), task)


def feed(trial: metarl.Trial, batch: TrajectoryBatch) -> list[Any]:
    """A recorded rollout of one world, step by step; the distributions that the trial would have acted from."""
    dists = []
    for t in range(batch.reward.shape[-1]):
        if not batch.valid[0, 0, t]:
            break
        trial.act(batch.obs[0, 0, t].numpy())
        dists.append(trial.acting.dist)
        action = batch.action[0, 0, t]
        trial.observe(
            batch.next_obs[0, 0, t].numpy(),
            float(batch.reward[0, 0, t]),
            bool(batch.terminated[0, 0, t]),
            bool(batch.truncated[0, 0, t]),
            action=int(action.argmax()) if trial.spec.discrete else action,
        )
    return dists


def assert_equal(found: Any, expected: Any) -> None:
    assert len(tree_leaves(found)) == len(tree_leaves(expected)) > 0
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True))


@pytest.mark.parametrize("name", GRADIENT)
def test_a_recorded_rollout_adapts_a_trial_to_the_same_bits(name: str) -> None:
    learner, agent = GRADIENT[name], untrained(GRADIENT[name])
    env = TASKS.make(1, 1, seed=0)
    batches = adaptation(learner, agent.state, env, TASK, learner.act, [1.0, 0.5], 3, stream(0, "draws"))
    trial = agent.trial(seed=7)
    first = tree_map(Tensor.clone, trial.acting.actor)
    actor = learner.actor(agent.state, 1)
    for batch, scale in zip(batches, [1.0, 0.5], strict=False):
        dists = feed(trial, batch)
        assert_equal(tree_map(lambda *x: torch.stack(x, dim=2), *dists), batch.dist)
        trial.adapt(scale=scale)
        actor = learner.adapt(agent.state, actor, learner.credit(agent.state, batch), scale=scale)
        assert_equal(trial.acting.actor, actor)
    moved = [name for name in first if not torch.equal(first[name], trial.acting.actor[name])]
    assert moved == (["context"] if name == "cavia" else list(first)), "negative control: it adapted"


@pytest.mark.parametrize("name", MEMORY)
@pytest.mark.parametrize(
    "tasks", [TASKS, TabularMDP(horizon=6), Echo(horizon=4, pay=1e-4)], ids=lambda x: type(x).__name__
)
def test_a_recorded_trial_is_remembered_by_the_same_bits(name: str, tasks: TaskDistribution) -> None:
    learner, agent = MEMORY[name], untrained(MEMORY[name], tasks)
    env = tasks.make(1, 1, seed=0)
    env.set_tasks(tasks.sample(1, stream(3, "task")))
    batch, actor = rollout(env, learner.act, learner.actor(agent.state, 1), 3, stream(0, "draws"), trials=True)
    trial = agent.trial(seed=7)
    dists = feed(trial, batch)
    trial.adapt()
    assert_equal(
        tree_map(lambda *x: torch.stack(x, dim=2), *dists), tree_map(lambda x: x[:, :, : len(dists)], batch.dist)
    )
    if batch.valid.all():
        assert_equal(trial.acting.actor, actor)
    other = agent.trial(seed=7)
    feed(other, batch._replace(reward=batch.reward + 1))
    assert not torch.equal(tree_leaves(other.acting.actor.memory)[-1], tree_leaves(trial.acting.actor.memory)[-1])


def test_episodes_that_end_early_adapt_a_trial_as_closely_as_floats_allow() -> None:
    tasks = Echo(horizon=6, pay=1e-3, discrete=False)
    learner = MAML(POLICY)
    agent = untrained(learner, tasks)
    env = tasks.make(1, 1, seed=0)
    env.set_tasks(torch.tensor([4.0]))
    batch, actor = rollout(env, learner.act, learner.actor(agent.state, 1), 3, stream(0, "draws"))
    assert batch.terminated.any()
    assert not batch.valid.all()
    trial = agent.trial()
    assert len(feed(trial, batch)) == 12
    trial.adapt()
    torch.testing.assert_close(
        trial.acting.actor, learner.adapt(agent.state, actor, learner.credit(agent.state, batch))
    )


@pytest.mark.parametrize("name", [*GRADIENT, *MEMORY])
def test_a_batch_of_tasks_adapts_as_meta_test_does(name: str) -> None:
    learner = (GRADIENT | MEMORY)[name]
    tasks = TabularMDP(horizon=6) if remembers(learner) else TASKS
    agent, task = untrained(learner, tasks), tasks.sample(3, stream(0, "tasks"))
    scales = [1.0] * learner.adapt_steps
    reference = tasks.make(3, 4, seed=1)
    expected = meta_test(
        learner,
        agent.state,
        reference,
        task,
        scales=scales,
        episodes=2,
        greedy=True,
        seed=6,
        tests=tasks.make(3, 4, seed=2),
    ).returns[:, -1]
    env = tasks.make(3, 4, seed=1)
    env.set_tasks(task)
    adapted = agent.adapt(env, seed=6)
    tests = tasks.make(3, 4, seed=2)
    tests.set_tasks(task)
    if len(scales) > 0 or remembers(learner):  # resets of the stages before came first
        for _ in range(len(scales) or 1):
            rollout(tests, learner.act, learner.actor(agent.state, 3), 1, stream(0, "any"))
    found = adapted.test(tests, seed=6).returns[:, 0]
    torch.testing.assert_close(found, expected)
    obs = env.reset()
    for _ in range(3):
        action = adapted.act(obs, greedy=True)
        assert torch.equal(action, adapted.dist.mode())
        step = env.step(action)
        adapted.observe(step)
        obs = step.obs


def test_memory_of_worlds_that_end_at_different_times_is_refused() -> None:
    tasks = Echo(horizon=4)
    with pytest.raises(BadField, match="episodes that end early"):
        untrained(MEMORY["gru"], tasks).adapt(tasks.make(2, 2, seed=0))


def test_actions_leave_as_observations_came_and_within_bounds() -> None:
    trial = untrained(MAML(GaussianMLP((8,), init_std=100.0))).trial(seed=1)
    one, two = trial.act([0.0, 0.0]), trial.act(torch.zeros(2))
    assert isinstance(one, np.ndarray)
    assert isinstance(two, Tensor)
    assert set(np.abs(one).tolist() + two.abs().tolist()) == {1.0}
    same = untrained(MAML(GaussianMLP((8,), init_std=100.0)))
    assert np.array_equal(same.trial(seed=1).act([0.0, 0.0]), one)
    noisy, calm = same.trial(seed=2), same.trial(seed=3)
    assert not np.array_equal(noisy.act([0.5, 0.1]), calm.act([0.5, 0.1]))
    assert np.array_equal(noisy.act([0.5, 0.1], greedy=True), calm.act([0.5, 0.1], greedy=True))


def test_a_discrete_action_is_gymnasiums() -> None:
    tasks = Echo(horizon=4)
    env = gymnasium.make("metarl/Bandit-v0", preset="k5")
    agent = untrained(MEMORY["gru"], env.unwrapped.tasks)
    trial = agent.trial()
    obs, _ = env.reset(seed=0)
    for _ in range(10):
        action = trial.act(obs)
        assert env.action_space.contains(action)
        obs, reward, terminated, truncated, _ = env.step(action)
        trial.observe(obs, reward, terminated, truncated)
        if terminated or truncated:
            obs, _ = env.reset()
    other = untrained(MEMORY["gru"], tasks).trial()
    other.act([0.0, 0.0])
    with pytest.raises(BadField, match="action is 2"):
        other.observe([0.0, 0.0], 0.0, False, False, action=2)


def test_mistakes_are_named() -> None:
    trial = untrained(MAML(POLICY)).trial()
    with pytest.raises(ValueError, match="call act"):
        trial.observe([0.0, 0.0], 0.0, False, False)
    with pytest.raises(ValueError, match="adapt after 0 steps"):
        trial.adapt()
    with pytest.raises(BadField, match=r"obs has shape \(3,\): navigation needs 2 numbers"):
        trial.act([0.0, 0.0, 0.0])
    with pytest.raises(BadField, match=r"obs is .*nan"):
        trial.act([0.0, float("nan")])
    trial.act([0.0, 0.0])
    with pytest.raises(BadField, match=r"reward is .*inf"):
        trial.observe([0.0, 0.0], float("inf"), False, False)
    trial.observe([0.0, 0.0], 0.0, False, False)
    with pytest.raises(ValueError, match="adapt after 1 steps, 1 of them of an unfinished episode"):
        trial.adapt()
    remembering = untrained(MEMORY["gru"]).trial()
    remembering.act([0.0, 0.0])
    with pytest.raises(ValueError, match="call observe"):
        remembering.act([0.0, 0.0])


@pytest.mark.parametrize("name", ["maml", "gru"])
def test_a_run_is_loaded_with_what_it_learned(name: str, tmp_path: Path) -> None:
    learner = (GRADIENT | MEMORY)[name]
    experiment = Experiment(TASKS, learner, num_tasks=2, num_envs=2, episodes=2, iterations=1, eval_interval=0, seed=3)
    run = create_run(experiment, tmp_path, "run")
    assert execute(experiment, run) == 0
    agent: TrainedAgent = load(run)
    assert (agent.learner, agent.task) == (learner, TASKS)
    first: Params = learner.init(TASKS.spec, stream(3, "parameters")).meta
    assert any(not torch.equal(first[name], agent.state.meta[name]) for name in first)
    assert metarl.load is load
    assert agent.trial(seed=0).act([0.0, 0.0]).shape == (2,)
