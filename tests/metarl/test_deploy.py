"""An exported policy acts as the trial it was exported from, over whole episodes, with and without torch."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from test_agent import GRADIENT, MEMORY, POLICY, untrained
from torch import Tensor
from torch.onnx._internal.exporter._registration import ONNXRegistry

import metarl
from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.deploy import export, runner
from metarl.deploy.export import step_of
from metarl.deploy.runner import Policy
from metarl.deploy.step import OneStep
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution, find_preset
from metarl.envs.small.navigation import Navigation
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs.config import from_json
from metarl.seeds import stream
from metarl.types import remembers

pytestmark = pytest.mark.usefixtures("one_thread", "translations")

RAISED = {"policy.weight": 30.0, "log_std": 0.5}  # an untrained head is near zero
PLACES = Navigation(variant="corner", max_step=0.2, horizon=12)  # episodes that do not begin at the origin
CHEETAH = find_preset("half_cheetah_dir", "v5", horizon=40)


def lively(agent: metarl.TrainedAgent) -> metarl.TrainedAgent:
    """The same agent, its actions large and its reward's statistics as after some training."""
    meta = {name: value * RAISED.get(name, 1.0) for name, value in agent.state.meta.items()}
    state = agent.state._replace(meta=meta)
    if getattr(state, "reward_stats", None):
        state = state._replace(reward_stats={"mean": torch.tensor(-0.4), "std": torch.tensor(0.3)})
    return replace(agent, state=state)


@pytest.fixture(scope="module")
def translations() -> Iterator[None]:
    """Torch reads its table of translations to ONNX once: that is half of an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


class World:
    """One world of a task, as numbers that any policy can be played in."""

    def __init__(self, tasks: TaskDistribution, seed: int, *, anywhere: bool = False) -> None:
        tasks = PLACES if anywhere and isinstance(tasks, Navigation) else tasks
        self.env = tasks.make(1, 1, seed=seed)
        self.env.set_tasks(tasks.sample(1, stream(seed, "task")))
        self.obs = self.env.reset()[0, 0].numpy()

    def step(self, action: Any) -> tuple[Any, float, bool, bool]:
        taken = torch.as_tensor(action, dtype=torch.float32)
        if self.env.spec.discrete:
            taken = torch.eye(self.env.spec.action_dim)[int(action)]
        step = self.env.step(taken.reshape(1, 1, -1))
        self.obs = step.obs[0, 0].numpy()
        return step.next_obs[0, 0].numpy(), float(step.reward), bool(step.terminated), bool(step.truncated)


def play(trial: metarl.Trial, world: World, episodes: int) -> None:
    while episodes:
        obs, reward, terminated, truncated = world.step(trial.act(world.obs))
        trial.observe(obs, reward, terminated, truncated)
        episodes -= terminated or truncated


def adapted(agent: metarl.TrainedAgent) -> tuple[metarl.Trial, World]:
    trial, world = agent.trial(seed=1), World(agent.task, seed=2)
    play(trial, world, 2)
    trial.adapt()
    return trial, world


def assert_an_episode_is_played_alike(trial: metarl.Trial, world: World, policy: Policy, *, atol: float = 1e-6) -> None:
    """Both take their own greedy actions, both are told the same; the world follows the trial."""
    ended, steps, moved = False, 0, []
    while not ended:
        expected = trial.act(world.obs, greedy=True)
        found = policy.act(world.obs)
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
        obs, reward, terminated, truncated = world.step(expected)
        trial.observe(obs, reward, terminated, truncated)
        policy.observe(obs, reward, terminated, truncated)
        ended, steps = terminated or truncated, steps + 1
        moved.append(np.asarray(expected))
    assert steps > 3
    if not trial.spec.discrete:
        assert np.std(moved, axis=0).max() > 1e-3, "actions differ from step to step"


CASES: list[Any] = [
    *(pytest.param(untrained(GRADIENT[name]), id=name) for name in ("maml", "cavia", "es_maml")),
    pytest.param(
        untrained(MAML(GaussianMLP((100, 100)), inner_lr=0.1), CHEETAH), id="half_cheetah", marks=pytest.mark.slow
    ),
    *(pytest.param(untrained(MEMORY[name]), id=name) for name in MEMORY),
    *(
        pytest.param(untrained(MEMORY[name], TabularMDP(horizon=10)), id=f"{name} mdp")
        for name in ("lstm", "attention")
    ),
    pytest.param(untrained(MEMORY["gru"], CHEETAH), id="gru half_cheetah", marks=pytest.mark.slow),
    pytest.param(untrained(RL2(RecurrentPolicy("none", 8)), PLACES), id="none"),
]


class InTorch(Policy):
    """The step that is exported, before it is; or as torch.export saved it."""

    def __init__(self, file: Path, step: Any = None) -> None:
        content = {"metarl.json": ""}
        self._step = torch.export.load(file, extra_files=content).module() if step is None else step
        self._prepare(content["metarl.json"] if step is None else metadata(file))

    def _run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            found = self._step(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in found.items()}


def metadata(file: Path) -> str:
    with safetensors.safe_open(file, "pt") as opened:
        return str(opened.metadata()["metarl"])


@pytest.mark.parametrize("agent", CASES)
def test_a_step_is_what_a_trial_does(agent: metarl.TrainedAgent, tmp_path: Path) -> None:
    agent = lively(agent)
    for trial, world in (adapted(agent), (agent.trial(), World(agent.task, seed=3, anywhere=True))):
        step = step_of(agent, trial.acting.actor, trial.acting.previous)
        policy = InTorch(trial.export(tmp_path / "policy.safetensors"), step)
        assert_an_episode_is_played_alike(trial, world, policy)


@pytest.mark.parametrize(
    "agent",
    [pytest.param(case.values[0], id=case.id, marks=[] if case.id == "maml" else pytest.mark.slow) for case in CASES],
)
def test_onnx_plays_an_episode_as_the_trial_does(agent: metarl.TrainedAgent, tmp_path: Path) -> None:
    trial, world = adapted(lively(agent))
    policy = Policy(trial.export(tmp_path / "policy.onnx"))
    assert_an_episode_is_played_alike(trial, world, policy)
    assert_an_episode_is_played_alike(trial, world, policy)


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("maml", "gru", "lstm")), "attention"]
)
def test_torch_export_plays_an_episode_from_its_first_step_on(name: str, tmp_path: Path) -> None:
    agent = lively(untrained((GRADIENT | MEMORY)[name]))
    trial = agent.trial()
    assert_an_episode_is_played_alike(
        trial, World(agent.task, seed=3, anywhere=True), InTorch(trial.export(tmp_path / "policy.pt2"))
    )


def test_adaptation_is_in_the_file(tmp_path: Path) -> None:
    for agent in (untrained(GRADIENT["maml"]), lively(untrained(MEMORY["gru"]))):
        trial, _ = adapted(agent)
        file = trial.export(tmp_path / "a.safetensors")
        described, fresh = json.loads(metadata(file)), agent.trial().export(tmp_path / "b.safetensors")
        assert described["adaptation"] == {
            "inner_steps": int(not remembers(agent.learner)),
            "episodes": 2,
            "steps": 2 * agent.task.horizon,
        }
        found, before = safetensors.torch.load_file(file), safetensors.torch.load_file(fresh)
        if remembers(agent.learner):
            assert described["first"] != json.loads(metadata(fresh))["first"]
            assert all(torch.equal(found[name], before[name]) for name in before)
        else:
            assert all(torch.equal(found[name], trial.acting.actor[name]) for name in found)
            assert not any(torch.equal(found[name], before[name]) for name in before)


def test_parameters_open_again_as_a_learner(tmp_path: Path) -> None:
    trial, world = adapted(untrained(GRADIENT["maml"]))
    file = trial.export(tmp_path / "policy.safetensors")
    learner = from_json(MAML, json.loads(metadata(file))["learner"])
    assert learner == GRADIENT["maml"]
    obs = torch.from_numpy(world.obs)
    dist = learner.policy(safetensors.torch.load_file(file), obs.reshape(1, 1, -1))
    assert np.array_equal(dist.mean[0, 0].clamp(-1, 1).numpy(), trial.act(world.obs, greedy=True))


def test_one_task_of_a_batch_is_exported(tmp_path: Path) -> None:
    agent, env = untrained(GRADIENT["maml"]), PLACES.make(3, 4, seed=0)
    env.set_tasks(PLACES.sample(3, stream(0, "tasks")))
    adapted = agent.adapt(env)
    found = safetensors.torch.load_file(adapted.export(tmp_path / "policy.safetensors", task=2))
    assert all(torch.equal(value, adapted.actor[name][2:]) for name, value in found.items())
    with pytest.raises(BadField, match="task is 3: use 0 to 2"):
        adapted.export(tmp_path / "policy.safetensors", task=3)
    with pytest.raises(BadField, match="several worlds"):
        untrained(MEMORY["gru"]).adapt(env).export(tmp_path / "policy.safetensors")


def test_the_file_says_what_its_numbers_are(tmp_path: Path) -> None:
    agent = untrained(MEMORY["attention"], CHEETAH)
    spec = json.loads(metadata(agent.trial().export(tmp_path / "policy.safetensors")))
    assert spec["control_seconds"] == pytest.approx(0.05)
    assert spec["observation"]["signals"][0] == {"name": "rootz", "unit": "m"}
    assert spec["observation"]["signals"][8] == {"name": "rootx velocity", "unit": "m/s"}
    assert spec["action"]["signals"][5] == {"name": "ffoot", "unit": "N m", "low": -30.0, "high": 30.0}
    assert [port["name"] for port in spec["inputs"]][:2] == ["obs", "previous_action"]
    shapes = {port["name"]: port["shape"] for port in spec["inputs"] + spec["outputs"]}
    assert shapes["obs"] == [1, 17]
    assert shapes["action"] == shapes["mean"] == shapes["std"] == shapes["previous_action"] == [1, 6]
    assert shapes["memory_1"] == shapes["next_memory_1"] == [1, None, 8], "keys are remembered step by step"
    assert spec["memory"] == {f"memory_{part}": f"next_memory_{part}" for part in range(3)}
    assert spec["task"]["name"] == "half_cheetah_dir"


def test_units_of_actions_and_samples(tmp_path: Path) -> None:
    trial = untrained(MAML(GaussianMLP((8,), init_std=0.2)), CHEETAH).trial()
    step = step_of(trial.acting._agent, trial.acting.actor, None)
    policy = InTorch(trial.export(tmp_path / "policy.safetensors"), step)
    assert policy.command(np.full(6, -1.0)).tolist() == [-120, -90, -60, -120, -60, -30]
    assert policy.command(np.zeros(6)).tolist() == [0.0] * 6
    obs, random = np.full(17, 0.1), np.random.default_rng(0)
    draws = np.stack([policy.act(obs, random=random) for _ in range(300)])
    np.testing.assert_allclose(draws.mean(0), policy.act(obs), atol=5 * 0.2 / 300**0.5)
    np.testing.assert_allclose(draws.std(0), 0.2, rtol=0.15)


def test_a_policy_that_depends_on_numbers_is_refused(tmp_path: Path) -> None:
    agent = replace(untrained(Moody(POLICY)))
    with pytest.raises(ValueError, match="cannot be traced"):
        agent.trial().export(tmp_path / "policy.pt2")
    assert list(tmp_path.iterdir()) == []


class Moody(MAML):
    """Looks at its observation in Python, where no graph sees it."""

    def act(self, actor: Any, obs: Tensor, *rest: Any) -> Any:
        return super().act(actor, -obs if obs.sum() > 0 else obs, *rest)


def test_an_export_that_acts_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(step: OneStep, description: str) -> Any:
        return b"", lambda given: {name: value + 1e-3 for name, value in step(**given).items()}

    monkeypatch.setitem(export.WRITERS, ".pt2", wrong)
    with pytest.raises(ValueError, match=r"action of the exported policy is 0\.001 off"):
        untrained(GRADIENT["maml"]).trial().export(tmp_path / "policy.pt2")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = untrained(MEMORY["gru"]).trial()
    with pytest.raises(BadField, match=r"path is 'policy.pkl': use a name that ends in .onnx, .pt2, .safetensors"):
        trial.export(tmp_path / "policy.pkl")
    with pytest.raises(BadField, match="there is no folder"):
        trial.export(tmp_path / "missing" / "policy.onnx")
    trial.act([0.0, 0.0])
    with pytest.raises(ValueError, match="call observe"):
        trial.export(tmp_path / "policy.onnx")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"safetensors is missing: pip install 'metarl-toolkit\[deploy\]'"):
        untrained(GRADIENT["maml"]).trial().export(tmp_path / "policy.safetensors")


ALONE = """
import runpy, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "metarl", "gymnasium", "mujoco", "onnx"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
Policy = runpy.run_path(sys.argv[1])["Policy"]
policy = Policy(sys.argv[2])
for number in range(20):
    print(*policy.act([0.1 * number, 0.3]))
    policy.observe([0.0, 0.0], 0.1 * number, False, number % 10 == 9)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_file_runs_without_torch_and_without_this_library(tmp_path: Path) -> None:
    trial = lively(untrained(MEMORY["gru"])).trial()
    file = trial.export(tmp_path / "policy.onnx")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, runner.__file__, str(file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    for number, line in enumerate(lines[:20]):
        expected = trial.act([0.1 * number, 0.3], greedy=True)
        np.testing.assert_allclose([float(word) for word in line.split()], expected, rtol=0, atol=1e-6)
        trial.observe([0.0, 0.0], 0.1 * number, False, number % 10 == 9)
    assert lines[20].endswith("navigation, no clock, adapted to {'inner_steps': 0, 'episodes': 0, 'steps': 0}")
    assert "on one core" in lines[-1]
