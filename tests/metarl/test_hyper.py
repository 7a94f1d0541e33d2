"""Recurrent hypernetworks: the plain policy where the map is zero, loops over steps elsewhere; cost and controls."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rl2_checks import equal, play, seeded, trained
from run_checks import TINY
from test_agent import untrained
from test_deploy import InTorch, World, adapted, assert_an_episode_is_played_alike
from test_normalize import state_of
from torch import Tensor
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from update_checks import meta_update

from metarl.algorithms.rl2 import RL2
from metarl.deploy.export import step_of
from metarl.deploy.runner import Policy
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.networks import hyper
from metarl.networks.encoders import CNN
from metarl.networks.hyper import HyperPolicy
from metarl.networks.normalize import learned
from metarl.networks.recurrent import ActorCritic, RecurrentPolicy
from metarl.types import Params

CPU = torch.device("cpu")
TORQUE = EnvSpec(5, 2, 10, terminates=False, has_success=False, discrete=False)
CHOICE = replace(TORQUE, discrete=True)
SMALL = HyperPolicy(memory_size=6, hidden_sizes=(4, 3))
BATCH, TIME = 3, 7
KINDS = ("weights", "film", "state")

pytestmark = pytest.mark.usefixtures("one_thread")


def somewhere(policy: HyperPolicy, spec: EnvSpec = TORQUE) -> Params:
    """Where training may have left it."""
    generator = seeded(1)
    params = policy.init(spec, generator)
    moved = {name: w + 0.3 * torch.randn(w.shape, generator=generator) for name, w in learned(params).items()}
    return params | moved


def inputs(spec: EnvSpec = TORQUE, seed: int = 2, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, TIME, spec.obs_dim + spec.action_dim + 2, generator=seeded(seed))


def said(policy: RecurrentPolicy, params: Params, x: Tensor) -> ActorCritic:
    return policy(params, x, policy.empty_memory(len(x), CPU))


def plain(params: Params, name: str, x: Tensor) -> Tensor:
    """The network of these weights, in torch's modules."""
    layers: list[torch.nn.Module] = []
    for end in ("_0", "_1", ""):
        weight, bias = params[f"{name}.weight{end}"], params[f"{name}.bias{end}"]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])(x)


# --- what it computes --------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("spec", [TORQUE, CHOICE], ids=["continuous", "discrete"])
@pytest.mark.parametrize("kind", ["weights", "film"])
def test_a_map_of_zeros_is_the_plain_policy_to_the_bit(kind: str, spec: EnvSpec) -> None:
    """And FiLM at the identity, whatever memory says. Any other map is another policy."""
    policy = replace(SMALL, conditioning=kind)
    params = somewhere(policy, spec)
    maps = [name for name in params if ".map" in name]
    assert len(maps) == 6
    zeros = params | {name: torch.zeros_like(params[name]) for name in maps}
    x = inputs(spec)
    answer, state = said(policy, zeros, x), x[..., : spec.obs_dim]
    head = plain(params, "policy", state)
    assert torch.equal(answer.value, plain(params, "value", state).squeeze(-1))
    assert torch.equal(
        answer.dist.log_probs if spec.discrete else answer.dist.mean, head.log_softmax(-1) if spec.discrete else head
    )
    for name in maps:
        other = said(policy, zeros | {name: params[name]}, x)
        changed = answer.value if name.startswith("value") else tree_leaves(answer.dist)[0]
        assert not torch.equal(changed, other.value if name.startswith("value") else tree_leaves(other.dist)[0])


@torch.no_grad()
@pytest.mark.parametrize("code_size", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_acts_with_the_weights_of_its_own_code(kind: str, code_size: int) -> None:
    """A loop over worlds and steps, in which the weights of each are written down."""
    policy = replace(SMALL, conditioning=kind, code_size=code_size)
    params, x = somewhere(policy), inputs()
    answer = said(policy, params, x)
    memory = {name.removeprefix("memory."): w for name, w in params.items() if name.startswith("memory.")}
    codes, _ = policy._memory(memory, x, policy.empty_memory(BATCH, CPU))
    if code_size:
        codes = linear(codes, params["code.weight"], params["code.bias"]).relu()
    for name, found in (("policy", answer.dist.mean), ("value", answer.value.unsqueeze(-1))):
        for world in range(BATCH):
            for t in range(TIME):
                h, code = x[world, t, : TORQUE.obs_dim], codes[world, t]
                for end in ("_0", "_1", ""):
                    weight, bias = params[f"{name}.weight{end}"], params[f"{name}.bias{end}"]
                    if kind == "weights":
                        change = (params[f"{name}.map{end}"] @ code).view(len(bias), -1)
                        weight, bias = weight + change[:, :-1], bias + change[:, -1]
                    elif kind == "film":
                        scale, shift = (params[f"{name}.map{end}"] @ code).chunk(2)
                        weight, bias = (1 + scale).unsqueeze(1) * weight, (1 + scale) * bias + shift
                    elif end == "_0":
                        bias = bias + params[f"{name}.code_0"] @ code
                    h = weight @ h + bias
                    h = h.tanh() if end else h
                torch.testing.assert_close(found[world, t], h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bias_hyper_init(kind: str) -> None:
    """The map begins at zero and the policy's own weights do not: history has no say before training, but learns to."""
    policy = replace(SMALL, conditioning=kind)
    params = {name: w.requires_grad_() for name, w in policy.init(TORQUE, seeded()).items()}
    x = inputs()
    other = torch.cat([x[..., : TORQUE.obs_dim], inputs(seed=3)[..., TORQUE.obs_dim :]], dim=-1)
    answer = said(policy, params, x)
    assert torch.equal(answer.dist.mean, said(policy, params, other).dist.mean) == (kind != "state")
    assert answer.value.eq(0).all()
    answer.dist.mean.pow(3).sum().backward()
    changes = [name for name in params if name.startswith(("policy.map", "policy.code"))]
    assert all(params[name].grad.ne(0).any() for name in changes)  # type: ignore[union-attr]
    assert all(params[name].eq(0).all() for name in changes) == (kind != "state")
    first = params["policy.weight_0"].detach()
    torch.testing.assert_close(first @ first.mT, torch.eye(4))


@pytest.mark.parametrize(
    ("kind", "at_once"),
    [*((kind, hyper.AT_ONCE) for kind in KINDS), pytest.param("weights", 1, marks=pytest.mark.slow)],
)
def test_gradients_are_those_of_finite_differences(
    kind: str, at_once: int, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hyper, "AT_ONCE", at_once)
    policy = HyperPolicy(memory_size=3, hidden_sizes=(3,), conditioning=kind, code_size=2)
    params = {name: w.double().requires_grad_() for name, w in somewhere(policy).items()}
    x = inputs(batch=2)[:, :3].double().requires_grad_()

    def loss(x: Tensor, *weights: Tensor) -> Tensor:
        answer = said(policy, dict(zip(params, weights, strict=True)), x)
        return answer.dist.mean.sin().sum() + answer.dist.log_std.sum() + (answer.value**2).sum()

    assert torch.autograd.gradcheck(loss, (x, *params.values()), fast_mode=True, atol=1e-6)


# --- what it costs -----------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The largest tensor that the operations under it put out."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))])
        return out


def largest(learner: RL2, at_once: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """In an update from trials of 60 steps, forward and back."""
    monkeypatch.setattr(hyper, "AT_ONCE", at_once)
    tasks = Navigation(horizon=20)
    state = learner.init(tasks.spec, seeded())
    batch = learner.credit(state, play(learner, tasks, state))
    with Largest() as counted:
        meta_update(learner, state, [batch])
    return counted.numbers


def test_the_weights_of_a_whole_trial_are_never_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """6 worlds of 60 steps, 32 * 3 weights each in the first layer: 34,560 together, forward and on the way back."""
    learner, trial = RL2(policy=HyperPolicy(memory_size=8), epochs=1), 6 * 60 * 96
    assert largest(learner, 10 * trial, monkeypatch) >= trial, "negative control"
    pieces = replace(learner, bptt_steps=5)
    assert largest(pieces, 10 * trial, monkeypatch) <= 6 * 60 * 33
    for bounded in (learner, pieces):
        assert largest(bounded, 1000, monkeypatch) <= 6 * 60 * 33, "units of whole trials, not weights"


@torch.no_grad()
def test_pieces_do_not_change_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    params, x = somewhere(SMALL), inputs()
    together = said(SMALL, params, x)
    monkeypatch.setattr(hyper, "AT_ONCE", 60)
    torch.testing.assert_close(said(SMALL, params, x)[:2], together[:2])


# --- as RL²'s policy ---------------------------------------------------------------------------------

POLICIES = [
    *(pytest.param(replace(SMALL, memory=memory, memory_size=8), id=memory) for memory in ("gru", "lstm", "attention")),
    pytest.param(replace(SMALL, memory="transformer", memory_size=8, memory_window=4), id="transformer"),
    pytest.param(replace(SMALL, conditioning="film", value_head="plain", code_size=3), id="film"),
    pytest.param(replace(SMALL, conditioning="state"), id="state"),
    pytest.param(replace(SMALL, hidden_sizes=(), memory="none"), id="one layer, no memory"),
]


@pytest.mark.parametrize("tasks", [Bandit(arms=3), Navigation(horizon=4)], ids=["discrete", "continuous"])
@pytest.mark.parametrize("policy", POLICIES)
def test_rl2_replays_what_it_played_and_learns_every_weight(policy: HyperPolicy, tasks: TaskDistribution) -> None:
    learner = RL2(policy=policy, epochs=1)
    state = trained(learner, tasks.spec)._replace(num_updates=0)
    batch = learner.credit(state, play(learner, tasks, state, num_tasks=2, episodes=6))
    for bptt_steps in (0, 4):
        dist = replace(learner, bptt_steps=bptt_steps).replay(state, batch).dist
        torch.testing.assert_close(dist.log_prob(batch.action), batch.log_prob, rtol=1e-4, atol=1e-4)
    after, metrics = meta_update(learner, state, [batch])
    assert all(not torch.equal(after.meta[name], state.meta[name]) for name in state.meta)
    assert metrics["train/meta_gradient_norm"] > 0
    again, _ = meta_update(learner, state, [batch])
    assert equal(again, after), "a resumed run repeats it to the bit"


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    """From the checkpoint after the first of two updates; the run's folder knows the policy by its name."""
    policy = replace(SMALL, memory="transformer", memory_size=8, memory_window=4, code_size=3)
    experiment = replace(TINY, learner=RL2(policy=policy, epochs=2), episodes=4, iterations=2)
    whole, resumed = state_of(experiment, tmp_path / "whole"), state_of(experiment, tmp_path / "resumed", 1)
    assert whole["policy.map_0"].ne(0).any()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_it_sees_the_features_of_its_encoder_again() -> None:
    image = (4, 4, 1)
    spec = replace(CHOICE, obs_dim=16)
    policy = replace(SMALL, encoder=CNN(image, filters=(2,), kernel=2, features=5), normalize_obs=True)
    params = somewhere(policy, spec)
    x = inputs(spec)
    features = policy._observed(params, x)[..., :5]
    zeros = params | {name: torch.zeros_like(w) for name, w in params.items() if ".map" in name}
    expected = plain(params, "policy", features).log_softmax(-1)
    torch.testing.assert_close(said(policy, zeros, x).dist.log_probs, expected)


def test_more_weights_than_fit_are_refused() -> None:
    with pytest.raises(BadField, match=r"hidden_sizes is \(2048, 2048\): a layer has 4196352 weights"):
        HyperPolicy(hidden_sizes=(2048, 2048)).init(TORQUE, seeded())
    HyperPolicy(hidden_sizes=(2048, 2048), conditioning="film").require_fits(TORQUE)
    with pytest.raises(BadField, match="code_size is -1"):
        HyperPolicy(code_size=-1)


# --- export ------------------------------------------------------------------------------------------


@pytest.fixture
def exported(request: pytest.FixtureRequest) -> Any:
    """An agent whose memory has a say, as after some training."""
    memory, kind = request.param
    policy = replace(SMALL, memory=memory, memory_size=8, memory_window=6, conditioning=kind)
    agent = untrained(RL2(policy=policy), Navigation(horizon=12))
    return replace(agent, state=agent.state._replace(meta=somewhere(policy, agent.task.spec)))


EXPORTED = [("transformer", "weights"), ("gru", "weights"), ("gru", "film"), ("lstm", "state")]


@pytest.mark.parametrize("exported", EXPORTED, indirect=True, ids="-".join)
def test_a_step_is_what_a_trial_does(exported: Any, tmp_path: Path) -> None:
    trial, world = adapted(exported)
    step = step_of(exported, trial.acting.actor, trial.acting.previous)
    assert not any(step.growing.values()), "a window does not grow"
    policy = InTorch(trial.export(tmp_path / "policy.safetensors"), step)
    assert_an_episode_is_played_alike(trial, world, policy)


@pytest.mark.parametrize(
    "exported",
    [pytest.param(case, marks=pytest.mark.slow) for case in EXPORTED],
    indirect=True,
    ids="-".join,
)
def test_onnx_plays_on_past_the_window_as_the_trial_does(exported: Any, tmp_path: Path) -> None:
    """A hypernetwork on a transformer: 24 steps remembered before the export and 12 after it, in a window of 6."""
    trial, world = adapted(exported)
    assert_an_episode_is_played_alike(trial, world, Policy(trial.export(tmp_path / "policy.onnx")), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("exported", EXPORTED[:1], indirect=True, ids="-".join)
def test_torch_export_begins_a_trial(exported: Any, tmp_path: Path) -> None:
    trial = exported.trial()
    file = trial.export(tmp_path / "policy.pt2")
    assert_an_episode_is_played_alike(trial, World(exported.task, seed=3, anywhere=True), InTorch(file))
