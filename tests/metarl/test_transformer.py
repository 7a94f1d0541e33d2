"""A transformer over a window: against loops over steps and heads, in pieces, past its window, at constant cost."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from rl2_checks import play, trained
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metarl.algorithms.rl2 import RL2
from metarl.envs.fields import BadField
from metarl.envs.small.bandit import Bandit
from metarl.networks.memory import MEMORIES
from metarl.networks.recurrent import RecurrentPolicy
from metarl.networks.transformer import SHUT, Transformer
from metarl.types import Params

BATCH, INPUTS, SIZE, WINDOW = 3, 4, 8, 3
CPU = torch.device("cpu")
SMALL = Transformer(layers=2, heads=2, window=WINDOW, gate="gru")
GATES = [SMALL, replace(SMALL, gate="sum")]

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights_of(memory: Transformer, *, moved: float = 0.3) -> Params:
    """Where training may have left them: no bias at zero."""
    generator = seeded(1)
    params = memory.init(INPUTS, SIZE, generator)
    return {name: x + moved * torch.randn(x.shape, generator=generator) for name, x in params.items()}


def sequence(time: int) -> Tensor:
    return torch.randn(BATCH, time, INPUTS, generator=seeded(2))


def said(memory: Transformer, params: Params, x: Tensor) -> Tensor:
    return memory(params, x, memory.empty(len(x), SIZE, CPU))[0]


# --- what it computes --------------------------------------------------------------------------------


def normed(params: Params, name: str, x: Tensor) -> Tensor:
    deviation = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
    return deviation * params[f"{name}.weight"] + params[f"{name}.bias"]


def gated(params: Params, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Parisotto et al. 2020, equations of the GRU gate, a matrix at a time."""
    w_r, w_z, w_h = params[f"{name}.added"].split(SIZE)
    u_r, u_z = params[f"{name}.stream"].split(SIZE)
    r, z = torch.sigmoid(w_r @ y + u_r @ x), torch.sigmoid(w_z @ y + u_z @ x - params[f"{name}.bias"])
    return (1 - z) * x + z * torch.tanh(w_h @ y + params[f"{name}.reset"] @ (r * x))


def wave(distance: int) -> Tensor:
    angles = [distance / 10_000 ** (i / SIZE) for i in range(0, SIZE, 2)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])


def by_hand(memory: Transformer, params: Params, x: Tensor) -> Tensor:
    """One sequence [time in]: a step, a layer, a head and a look back after the other, over everything there was."""
    streams = [params["embed.weight"] @ now + params["embed.bias"] for now in x]
    for layer in range(memory.layers):
        own = {name.removeprefix(f"{layer}."): w for name, w in params.items() if name.startswith(f"{layer}.")}
        seen = [normed(own, "attend.norm", stream) for stream in streams]
        for t, stream in enumerate(list(streams)):
            found = []
            for head in torch.arange(SIZE).chunk(memory.heads):
                query = (own["query.weight"] @ seen[t])[head]
                scores, values = [], []
                for s in range(max(0, t - memory.window), t + 1):
                    key, far = (own["key.weight"] @ seen[s])[head], (own["where.weight"] @ wave(t - s))[head]
                    what, where = query + own["what.bias"][head], query + own["where.bias"][head]
                    scores.append((what @ key + where @ far) / math.sqrt(len(head)))
                    values.append((own["value.weight"] @ seen[s])[head])
                weights = torch.stack(scores).softmax(0)
                found.append(sum(w * value for w, value in zip(weights, values, strict=True)))
            added = own["output.weight"] @ torch.cat(found)
            middle = stream + added if memory.gate == "sum" else gated(own, "attend.gate", stream, added.relu())
            hidden = (own["up.weight"] @ normed(own, "feed.norm", middle) + own["up.bias"]).relu()
            added = own["down.weight"] @ hidden + own["down.bias"]
            streams[t] = middle + added if memory.gate == "sum" else gated(own, "feed.gate", middle, added.relu())
    return torch.stack([normed(params, "norm", stream) for stream in streams])


@pytest.mark.parametrize("memory", GATES, ids=lambda memory: memory.gate)
def test_it_is_attention_over_a_window_by_content_and_distance(memory: Transformer) -> None:
    """Three times the window long, so that most steps have forgotten some."""
    params, x = weights_of(memory), sequence(3 * WINDOW + 1)
    expected = torch.stack([by_hand(memory, params, each) for each in x])
    torch.testing.assert_close(said(memory, params, x), expected, rtol=1e-4, atol=1e-5)


def test_gates_begin_nearly_shut() -> None:
    """Before training a layer changes its stream by a share sigma(-2) of what it would: near the identity."""
    memory = replace(SMALL, layers=1)
    params, x = memory.init(INPUTS, SIZE, seeded()), sequence(5)
    assert all(w.eq(SHUT).all() for name, w in params.items() if name.endswith("gate.bias"))
    stream = torch.nn.functional.layer_norm(x @ params["embed.weight"].mT, (SIZE,))
    change = (said(memory, params, x) - stream).norm() / stream.norm()
    wide = params | {name: -w for name, w in params.items() if name.endswith("gate.bias")}
    assert change < 0.5 < (said(memory, wide, x) - stream).norm() / stream.norm()


# --- acting and replaying ----------------------------------------------------------------------------


@pytest.mark.parametrize("memory", GATES, ids=lambda memory: memory.gate)
@pytest.mark.parametrize("pieces", [1, 2, WINDOW, 7])
def test_any_pieces_are_the_whole_sequence_past_the_window_too(memory: Transformer, pieces: int) -> None:
    """Step by step as a rollout acts, in pieces as truncated backpropagation goes, at once as an update replays."""
    params, x = weights_of(memory), sequence(5 * WINDOW)
    state = memory.empty(BATCH, SIZE, CPU)
    whole, last = memory(params, x, state)
    outputs = []
    for piece in x.split(pieces, dim=1):
        output, state = memory(params, piece, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, rtol=0, atol=1e-5)
    for found, expected in zip(state, last, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_step_reaches_as_far_as_its_layers_windows_and_no_further() -> None:
    params, x = weights_of(SMALL), sequence(4 * WINDOW).requires_grad_()
    said(SMALL, params, x)[:, -1].square().sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().amax((0, 2)) > 0
    assert reached.tolist() == [t >= 4 * WINDOW - 1 - 2 * WINDOW for t in range(4 * WINDOW)]


class Counted(TorchDispatchMode):
    """How many numbers the operations under it put out."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numbers += sum(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out


def numbers_of_a_step(policy: RecurrentPolicy, *, after: int) -> int:
    """What one more step computes and keeps, with so many steps behind it."""
    params = policy.init(Bandit(arms=2).spec, seeded())
    memory = policy.empty_memory(BATCH, CPU)
    inputs = torch.randn(BATCH, after + 1, 5, generator=seeded(3))
    with torch.no_grad():
        for piece in inputs[:, :after].split(250, dim=1):
            memory = policy(params, piece, memory).memory
        with Counted() as counted:
            memory = policy(params, inputs[:, -1:], memory).memory
    return counted.numbers + sum(leaf.numel() for leaf in tree_leaves(memory))


def test_a_step_costs_the_same_however_long_the_trial() -> None:
    policy = RecurrentPolicy("transformer", SIZE, memory_window=16)
    assert numbers_of_a_step(policy, after=1) == numbers_of_a_step(policy, after=400)
    growing = replace(policy, memory="attention")
    assert numbers_of_a_step(growing, after=400) > 20 * numbers_of_a_step(growing, after=1), "negative control"


def test_gradients_are_those_of_finite_differences(float64: None) -> None:
    """Through the window's edge and a memory that is carried on."""
    memory = replace(SMALL, window=2)
    params = {name: w.double().requires_grad_() for name, w in weights_of(memory).items()}
    x = sequence(5).double()[:1].requires_grad_()

    def loss(x: Tensor, *weights: Tensor) -> Tensor:
        named = dict(zip(params, weights, strict=True))
        first, state = memory(named, x[:, :3], memory.empty(1, SIZE, CPU))
        then, _ = memory(named, x[:, 3:], state)
        return (torch.cat([first, then], dim=1) ** 2 * torch.arange(5.0).view(1, 5, 1)).tanh().sum()

    assert torch.autograd.gradcheck(loss, (x, *params.values()), fast_mode=True, atol=1e-6)


def test_every_weight_learns() -> None:
    params = {name: w.requires_grad_() for name, w in weights_of(SMALL).items()}
    said(SMALL, params, sequence(2 * WINDOW))[:, -1].pow(3).sum().backward()
    assert all(w.grad is not None and w.grad.ne(0).any() for w in params.values())


# --- as RL²'s memory ---------------------------------------------------------------------------------


def test_replay_repeats_a_trial_longer_than_the_window_at_any_truncation() -> None:
    learner = RL2(policy=RecurrentPolicy("transformer", SIZE, memory_window=4))
    tasks = Bandit(arms=3)
    state = trained(learner, tasks.spec)
    batch = play(learner, tasks, state, episodes=20)
    for bptt_steps in (0, 3, 7):
        dist = replace(learner, bptt_steps=bptt_steps).replay(state, batch).dist
        torch.testing.assert_close(dist.log_prob(batch.action), batch.log_prob, rtol=0, atol=1e-5)
    forgetful = replace(learner, policy=replace(learner.policy, memory_window=2)).replay(state, batch)
    assert (forgetful.dist.log_prob(batch.action) - batch.log_prob).abs().max() > 1e-3, "negative control"


def test_an_empty_ring_is_no_step_of_zeros() -> None:
    """The first step attends to itself alone: what an empty ring holds has no part in it."""
    params, x, empty = weights_of(SMALL), sequence(2), SMALL.empty(BATCH, SIZE, CPU)
    noise = empty._replace(keys=empty.keys + 1.0, values=empty.values + 1.0)
    assert torch.equal(SMALL(params, x, empty)[0], SMALL(params, x, noise)[0])


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(BadField, match=r"memory_size is 8: use a multiple of memory_heads \(3\)"):
        RecurrentPolicy("transformer", 8, memory_heads=3)
    with pytest.raises(BadField, match="memory_window is 0"):
        RecurrentPolicy("transformer", 8, memory_window=0)
    assert "transformer" not in MEMORIES, "its settings are the policy's"
