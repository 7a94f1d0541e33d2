"""Policy, rollout, adaptation and meta-update live on one device, and a rollout keeps the host waiting nowhere.

There is no GPU here: :mod:`tests.pretend_cuda` keeps its rules with the CPU's kernels, so numbers must agree in bits;
but for a GRU and an LSTM, whose steps torch sums up in another order where the device is not the CPU.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_cuda import Pretence, pretend_cuda, to_host
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO, Gradient
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import TaskDistribution
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.evaluate import held_out_tasks, meta_test
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline
from metarl.reports.references import references
from metarl.rollout import EARLY_STOP_INTERVAL, rollout
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.snapshot import capture, initial_progress, restore, restore_learner
from metarl.train import Progress, train
from metarl.types import Agent, MetaLearner, Metrics, remembers

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: nothing to pretend"),
]

POINTS, CORNERS = Navigation(horizon=6), Navigation(horizon=6, variant="corner", max_step=0.2)
BANDIT, MDP = Bandit(horizon=2, arms=3), TabularMDP(horizon=3, states=3, actions=2)
SMALL = GaussianMLP(hidden_sizes=(8,))


def rl2(memory: Any, **fields: Any) -> RL2:
    return RL2(policy=RecurrentPolicy(memory=memory, memory_size=8, encoder_sizes=(4,)), epochs=1, **fields)


LEARNERS: dict[str, tuple[MetaLearner, TaskDistribution]] = {
    "MAML, TRPO": (MAML(SMALL, outer=TRPO(cg_iterations=3, curvature_samples=25), chunk_samples=50), POINTS),
    "MAML, PPO": (MAML(SMALL, outer=PPO(epochs=2)), POINTS),
    "MAML, gradient": (MAML(SMALL, outer=Gradient(), estimator="fomaml"), POINTS),
    "MAML, two learned steps": (
        MAML(SMALL, outer=Gradient(), adapt_steps=2, learn_inner_lr=True),
        POINTS,
    ),
    "MAML, E-MAML": (MAML(SMALL, outer=TRPO(), adapt_steps=2, estimator="emaml"), POINTS),
    "MAML, DiCE": (MAML(SMALL, outer=Gradient(), estimator="dice"), POINTS),
    "MAML, CAVIA": (MAML(GaussianMLP((8,), context_size=2), outer=Gradient(), estimator="lvc"), POINTS),
    "MAML without adaptation": (MAML(SMALL, outer=PPO(epochs=1), adapt_steps=0), CORNERS),
    "ProMP": (ProMP(policy=SMALL), POINTS),
    "Reptile": (Reptile(policy=SMALL), POINTS),
    "ES-MAML": (ESMAML(policy=SMALL), POINTS),
    "RL2, GRU": (rl2("gru", minibatches=2), MDP),
    "RL2, LSTM": (rl2("lstm", bptt_steps=3), BANDIT),
    "RL2, attention": (rl2("attention"), MDP),
    "RL2, no memory": (rl2("none"), POINTS),
    "RL2, linear baseline": (rl2("attention", baseline=LinearFeatureBaseline()), MDP),
}


@pytest.fixture(autouse=True)
def same_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where torch has a kernel for the CPU alone, the one for any device."""
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", partial(torch.nn.utils.clip_grad_norm_, foreach=False))
    with sdpa_kernel(SDPBackend.MATH):
        yield


@pytest.fixture
def cuda() -> Iterator[Pretence]:
    with pretend_cuda() as pretence:
        yield pretence


def experiment_of(learner: MetaLearner, task: TaskDistribution, device: str) -> Experiment:
    episodes = 6 if remembers(learner) else 2
    return Experiment(task, learner, num_tasks=3, num_envs=2, episodes=episodes, device=device, num_threads=1)


RECURRENT = ("RL2, GRU", "RL2, LSTM")


@dataclass
class Run:
    """A training run in memory."""

    experiment: Experiment
    env: Any
    progress: Progress
    metrics: list[Metrics]

    def train(self, iterations: int) -> "Run":
        train(
            self.experiment.learner,
            self.experiment.task,
            self.env,
            self.progress,
            iterations=iterations,
            episodes=self.experiment.episodes_per_env,
            begin=lambda: None,
            log=self.metrics.append,
        )
        return self

    @property
    def numbers(self) -> Any:
        """Everything that must not depend on the device."""
        logged = [{k: v for k, v in found.items() if not k.startswith("time/")} for found in self.metrics]
        return to_host((self.progress.learner_state, self.progress.env_steps, logged))


def capture_of(run: Run) -> dict[str, Any]:
    return capture(run.experiment, run.progress, run.env)


def on(device: str) -> AbstractContextManager[Any]:
    return pretend_cuda() if device == "cuda" else nullcontext()


def new_run(name: str, device: str) -> Run:
    experiment = experiment_of(*LEARNERS[name], device)
    env = experiment.make_env(3, 2, stream="resets")
    return Run(experiment, env, initial_progress(experiment), [])


def assert_same(first: Any, second: Any, *, bits: bool = True) -> None:
    for a, b in zip(tree_leaves(first), tree_leaves(second), strict=True):
        assert type(a) is type(b)
        if isinstance(a, str):
            assert a == b
            continue
        assert_close(a, b, **({"rtol": 0, "atol": 0} if bits else {"rtol": 1e-4, "atol": 1e-7}))


# --- training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_training_has_the_bits_of_the_cpu_and_keeps_to_its_device(name: str) -> None:
    """Two iterations: the second starts from the optimizer's state of the first.

    One, where resets draw: on the device they draw in every step, on the CPU where an episode ended.
    """
    iterations = 1 if LEARNERS[name][1] is CORNERS else 2
    on_cpu = new_run(name, "cpu").train(iterations)
    with pretend_cuda():
        run = new_run(name, "cuda").train(iterations)
        assert_same(run.numbers, on_cpu.numbers, bits=name not in RECURRENT)
        assert all(x.is_cuda for x in tree_leaves((run.progress.learner_state.meta, run.env.worlds.observe())))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_rollout_keeps_the_host_waiting_for_its_looks_alone(name: str, cuda: Pretence) -> None:
    """At the end whether actions are finite; every 16 steps whether all are through, where a task terminates."""
    learner, task = LEARNERS[name]
    task = replace(task, horizon=EARLY_STOP_INTERVAL + 1)
    env, actions = task.make(3, 2, seed=0, device="cuda"), torch.Generator("cuda")
    state = learner.init(task.spec, actions)
    env.set_tasks(task.sample(3, torch.Generator()))
    cuda.waits.clear()
    batch, _ = rollout(env, learner.act, learner.actor(state, 3), 1, actions)
    assert cuda.waits == {"_local_scalar_dense": 3 if task.spec.terminates else 1}
    assert all(x.is_cuda for x in tree_leaves(batch))


def test_failed_worlds_are_reset_and_counted_without_waiting(cuda: Pretence) -> None:
    env = CORNERS.make(2, 2, seed=0, device="cuda")
    env.set_tasks(torch.ones(2, 2))
    env.reset()
    env.worlds._nowhere = torch.tensor([True, False, False, True], device="cuda")
    with cuda.no_syncs():
        for _ in range(3):
            env.step(torch.zeros(2, 2, 2, device="cuda"))
    assert env.num_diverged == 6
    assert env.clock.tolist() == [[0, 3], [3, 0]]


# --- checkpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MAML, PPO", "RL2, GRU"])
@pytest.mark.parametrize(("written", "read"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_what_was_learned_on_one_device_trains_on_on_the_other(
    name: str, written: str, read: str, tmp_path: Path
) -> None:
    path = tmp_path / "iteration.ckpt"
    reference = new_run(name, "cpu")
    restore_learner(reference.progress, capture_of(new_run(name, "cpu").train(1)))
    reference.train(2)
    with on(written):
        checkpoint.save(path, capture_of(new_run(name, written).train(1)))
    with on(read):
        run = new_run(name, read)
        restore_learner(run.progress, checkpoint.load(path))
        steps = [state["step"] for state in run.progress.learner_state.optimizer["state"].values()]
        assert not any(step.is_cuda for step in steps), "Adam would wait for each of its step counts"
        assert_same(run.train(2).numbers, reference.numbers, bits=name not in RECURRENT)


@pytest.mark.parametrize("name", ["MAML, gradient", "RL2, LSTM"])
def test_a_run_resumed_on_the_device_has_the_bits_of_an_undisturbed_one(
    name: str, tmp_path: Path, cuda: Pretence
) -> None:
    whole, first, second = (new_run(name, "cuda") for _ in range(3))
    whole.train(2)
    checkpoint.save(tmp_path / "iteration.ckpt", capture_of(first.train(1)))
    restore(second.experiment, second.progress, second.env, checkpoint.load(tmp_path / "iteration.ckpt"))
    second.train(2)
    assert_same(to_host(capture_of(second)), to_host(capture_of(whole)))


@pytest.mark.parametrize("task", [Bandit(arms=3), TabularMDP(states=3, actions=2)], ids=lambda task: task.name)
def test_worlds_with_generators_of_their_own_move_too(task: TaskDistribution) -> None:
    """A generator's state on a GPU is 16 bytes, which one on a CPU refuses; the worlds' other state comes along."""
    first, second = (task.make(2, 2, seed=seed) for seed in (0, 1))
    first.set_tasks(task.sample(2, torch.Generator().manual_seed(0)))
    first.reset()
    experiment = experiment_of(rl2("gru"), task, "cpu")
    content = capture(experiment, initial_progress(experiment), first) | {"device": "cuda"}
    there = tree_map(lambda x: x[:16] if isinstance(x, Tensor) and x.dtype == torch.uint8 else x, content["env"])
    restore(experiment, initial_progress(experiment), second, content | {"env": there})
    for name, value in first.state_dict()["worlds"].items():
        assert torch.equal(value, second.state_dict()["worlds"][name]) == (value.dtype != torch.uint8)
    states = [x for x in tree_leaves(second.state_dict()) if isinstance(x, Tensor) and x.dtype == torch.uint8]
    assert len(states) == 2
    assert not torch.equal(*states), "payoffs and resets have a stream each"


def test_a_run_that_moves_to_another_device_goes_on_from_its_learner_and_tasks(tmp_path: Path) -> None:
    """Draws of actions and resets differ from then on, for a GPU's generator cannot take over a CPU's."""
    with on("cpu"):
        first = new_run("MAML, gradient", "cpu").train(1)
        checkpoint.save(tmp_path / "iteration.ckpt", capture_of(first))
        meta, tasks = to_host(first.progress.learner_state.meta), first.progress.tasks.get_state()
    with on("cuda"):
        moved = new_run("MAML, gradient", "cuda")
        restore(moved.experiment, moved.progress, moved.env, checkpoint.load(tmp_path / "iteration.ckpt"))
        assert_same(to_host(moved.progress.learner_state.meta), meta)
        assert_same(moved.progress.tasks.get_state(), tasks)
        moved.train(2)
        assert moved.progress.iteration == 2


# --- evaluation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MAML, TRPO", "RL2, attention"])
def test_evaluation_has_the_bits_of_the_cpu(name: str) -> None:
    def test() -> Any:
        run = new_run(name, device)
        learner, task = run.experiment.learner, run.experiment.task
        protocol = {"episodes": 3, "greedy": True} if remembers(learner) else {"scales": (1.0, 0.5), "min_steps": 15}
        return to_host(
            meta_test(learner, run.progress.learner_state, run.env, held_out_tasks(task, 3), seed=1, **protocol)
        )

    results = []
    for device in ("cpu", "cuda"):
        with on(device):
            results.append(test())
    assert_same(*results)


@pytest.mark.parametrize("task", [BANDIT, MDP], ids=lambda task: task.name)
def test_reference_agents_have_the_bits_of_the_cpu(task: TaskDistribution) -> None:
    def test(agent: Agent) -> Any:
        env = task.make(3, 2, seed=0, device=device)
        return to_host(meta_test(agent, None, env, held_out_tasks(task, 3), episodes=3, seed=1))

    results = []
    for device in ("cpu", "cuda"):
        with on(device):
            results.append([test(agent) for agent in references(task, 3).values()])
    assert_same(*results)
