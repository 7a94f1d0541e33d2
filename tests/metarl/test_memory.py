"""Memories against torch's own modules, step by step against whole sequences, and their first weights."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from metarl.networks.memory import GRU, HEADS, LSTM, MEMORIES, Attention, Memory, Memoryless, orthogonal
from metarl.types import Params

BATCH, TIME, INPUTS, SIZE = 4, 7, 3, 8
REMEMBERING = [name for name, memory in MEMORIES.items() if memory.sees_history]

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights_of(memory: Memory) -> Params:
    """Where training may have left them: biases away from zero."""
    generator = seeded(1)
    params = memory.init(INPUTS, SIZE, generator)
    return {name: x + 0.3 * torch.randn(x.shape, generator=generator) for name, x in params.items()}


def sequence(*, time: int = TIME) -> Tensor:
    return torch.randn(BATCH, time, INPUTS, generator=seeded(2))


def some_state(memory: Memory) -> Tensor | tuple[Tensor, ...]:
    """Not empty."""
    generator = seeded(3)
    empty = memory.empty(BATCH, SIZE, torch.device("cpu"))
    return tree_map(lambda x: x + torch.randn(x.shape, generator=generator), empty)


def module_with(params: Params, kind: type[torch.nn.RNNBase]) -> torch.nn.RNNBase:
    module = kind(INPUTS, SIZE, batch_first=True)
    module.load_state_dict({f"{name}_l0": value for name, value in params.items()})
    return module


# --- against torch --------------------------------------------------------------------------------


def test_the_gru_is_torchs():
    memory = GRU()
    params, x, state = weights_of(memory), sequence(), some_state(memory)
    output, last = memory(params, x, state)
    expected, expected_last = module_with(params, torch.nn.GRU)(x, state.unsqueeze(0))
    assert output.shape == (BATCH, TIME, SIZE)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(last, expected_last.squeeze(0), rtol=0, atol=1e-6)
    assert torch.equal(last, output[:, -1])


def test_the_lstm_is_torchs():
    memory = LSTM()
    params, x, (hidden, cell) = weights_of(memory), sequence(), some_state(memory)
    output, last = memory(params, x, (hidden, cell))
    expected, expected_last = module_with(params, torch.nn.LSTM)(x, (hidden.unsqueeze(0), cell.unsqueeze(0)))
    assert output.shape == (BATCH, TIME, SIZE)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    for part, expected_part in zip(last, expected_last, strict=True):
        torch.testing.assert_close(part, expected_part.squeeze(0), rtol=0, atol=1e-6)
    # negative control: hidden and cell state the other way round
    swapped, _ = memory(params, x, (cell, hidden))
    assert (swapped - expected).abs().max() > 0.01


def test_a_gru_of_one_unit_by_hand():
    """All weights 1 and biases 0, from h = 0 with x = 1, sigma(1) = .731059, tanh(1) = .761594:
    r = z = .731059, n = tanh(1 + r 0) = .761594, h = (1 - z) n + z 0 = .204824;
    then with x = 0: r = z = sigma(h) = .551028, n = tanh(r h) = .112387, h' = (1 - z) n + z h = .163322.
    """
    params = {
        "weight_ih": torch.ones(3, 1),
        "weight_hh": torch.ones(3, 1),
        "bias_ih": torch.zeros(3),
        "bias_hh": torch.zeros(3),
    }
    output, _ = GRU()(params, torch.tensor([[[1.0], [0.0]]]), torch.zeros(1, 1))
    assert output.flatten().tolist() == pytest.approx([0.204824, 0.163322], abs=1e-6)


def attention_by_hand(params: Params, x: Tensor) -> Tensor:
    """One sequence [time in] from nothing, one step, one head and one look back after the other."""
    outputs, keys, values = [], [torch.zeros(SIZE)], [torch.zeros(SIZE)]
    before = torch.zeros(SIZE)
    for now in x:
        step = torch.tanh(params["embed.weight"] @ now + params["embed.bias"])
        transition = torch.tanh(params["join.weight"] @ torch.cat([step, before]) + params["join.bias"])
        keys.append(params["key.weight"] @ transition)
        values.append(params["value.weight"] @ transition)
        query = params["query.weight"] @ step
        found = []
        for head in torch.arange(SIZE).chunk(HEADS):
            scores = [(query[head] @ key[head]).item() / math.sqrt(SIZE / HEADS) for key in keys]
            total = sum(math.exp(score) for score in scores)
            found.append(sum(math.exp(s) / total * value[head] for s, value in zip(scores, values, strict=True)))
        together = torch.cat([*found, transition])
        outputs.append(torch.tanh(params["output.weight"] @ together + params["output.bias"]))
        before = step
    return torch.stack(outputs)


def test_attention_looks_back_over_every_step_and_over_nothing():
    """Softmax over the steps so far and the zero that stands for none, for each head."""
    memory = Attention()
    params, x = weights_of(memory), sequence()
    output, (last, keys, values) = memory(params, x, memory.empty(BATCH, SIZE, torch.device("cpu")))
    expected = torch.stack([attention_by_hand(params, x[i]) for i in range(BATCH)])
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    assert last.shape == (BATCH, 1, SIZE)
    assert keys.shape == values.shape == (BATCH, 1 + TIME, SIZE)


def test_no_memory_is_a_layer_of_tanh():
    memory = Memoryless()
    params, x = weights_of(memory), sequence()
    output, state = memory(params, x, ())
    layer = torch.nn.Linear(INPUTS, SIZE)
    layer.load_state_dict(params)
    torch.testing.assert_close(output, torch.tanh(layer(x)), rtol=0, atol=1e-6)
    assert state == ()


# --- one step at a time, and what is remembered ---------------------------------------------------


@pytest.mark.parametrize("name", MEMORIES)
def test_one_step_at_a_time_is_the_whole_sequence(name: str):
    """As a rollout acts, and as the update replays."""
    memory = MEMORIES[name]
    params, x, state = weights_of(memory), sequence(), some_state(memory)
    whole, last = memory(params, x, state)
    outputs = []
    for t in range(TIME):
        output, state = memory(params, x[:, t : t + 1], state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, rtol=0, atol=1e-6)
    for part, expected in zip(tree_leaves(state), tree_leaves(last), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MEMORIES)
def test_each_sequence_has_its_own_memory(name: str):
    memory = MEMORIES[name]
    params, x, state = weights_of(memory), sequence(), some_state(memory)
    together, _ = memory(params, x, state)
    for i in range(BATCH):
        alone, _ = memory(params, x[i : i + 1], tree_map(lambda part: part[i : i + 1], state))  # noqa: B023
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MEMORIES)
def test_only_memories_depend_on_what_was_before(name: str):
    """Another first input changes the last output, unless nothing is remembered; another last one no earlier output."""
    memory = MEMORIES[name]
    params, x, state = weights_of(memory), sequence(), some_state(memory)
    output, _ = memory(params, x, state)
    other, _ = memory(params, torch.cat([x[:, :1] + 1, x[:, 1:]], dim=1), state)
    if memory.sees_history:
        assert (other - output)[:, -1].abs().min() > 1e-6
    else:
        assert torch.equal(other[:, 1:], output[:, 1:])
    later, _ = memory(params, torch.cat([x[:, :-1], x[:, -1:] + 1], dim=1), state)
    torch.testing.assert_close(later[:, :-1], output[:, :-1], rtol=0, atol=1e-6)
    assert (later - output)[:, -1].abs().max() > 1e-2


def test_only_memories_are_fed_history():
    assert [name for name in MEMORIES if name not in REMEMBERING] == ["none"]


@pytest.mark.parametrize("name", REMEMBERING)
def test_an_empty_memory_is_zero(name: str):
    empty = MEMORIES[name].empty(BATCH, SIZE, torch.device("cpu"))
    for part in tree_leaves(empty):
        assert part.shape in ((BATCH, SIZE), (BATCH, 1, SIZE))
        assert part.eq(0).all()


@pytest.mark.parametrize("name", REMEMBERING)
def test_gradients_flow_through_time_into_every_weight_input_and_state(name: str):
    memory = MEMORIES[name]
    params = {key: value.requires_grad_() for key, value in weights_of(memory).items()}
    x = sequence().requires_grad_()
    state = tree_map(Tensor.requires_grad_, some_state(memory))
    output, _ = memory(params, x, state)
    output[:, -1].sum().backward()
    for leaf in (*params.values(), *tree_leaves(state)):
        assert leaf.grad.ne(0).all()
    assert x.grad[:, 0].ne(0).all()  # the first input reaches the last output


# --- first weights --------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (8, 3), (3, 8)])
def test_orthogonal_rows_or_columns_whichever_are_fewer(rows: int, columns: int):
    weight = orthogonal(rows, columns, seeded())
    assert weight.shape == (rows, columns)
    product = weight.mT @ weight if columns <= rows else weight @ weight.mT
    torch.testing.assert_close(product, torch.eye(min(rows, columns)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "gates"), [("gru", 3), ("lstm", 4)])
def test_recurrent_weights_begin_orthogonal_gate_by_gate(name: str, gates: int):
    """Each gate keeps the length of the state: W^T W = 1. As one matrix they could not be orthogonal each."""
    size = 32
    params = MEMORIES[name].init(INPUTS, size, seeded())
    pieces = params["weight_hh"].split(size)
    assert len(pieces) == gates
    for piece in pieces:
        torch.testing.assert_close(piece.mT @ piece, torch.eye(size), rtol=0, atol=1e-5)
    assert (pieces[0] - pieces[1]).abs().max() > 0.1
    # Glorot: uniform within sqrt(6 / (inputs + units)), so of variance bound^2 / 3
    bound = math.sqrt(6 / (INPUTS + size))
    uniform = params["weight_ih"]
    assert uniform.shape == (gates * size, INPUTS)
    assert 0.95 * bound < uniform.abs().max() <= bound
    assert uniform.var().item() == pytest.approx(bound**2 / 3, rel=0.2)
    assert params["bias_hh"].eq(0).all()


def test_biases_begin_at_zero_except_the_forget_gate_of_the_lstm():
    """Torch's order of gates: input, forget, cell, output."""
    assert GRU().init(INPUTS, SIZE, seeded())["bias_ih"].eq(0).all()
    bias = LSTM().init(INPUTS, SIZE, seeded())["bias_ih"]
    assert bias.view(4, SIZE).tolist() == [[0.0] * SIZE, [1.0] * SIZE, [0.0] * SIZE, [0.0] * SIZE]
    assert Memoryless().init(INPUTS, SIZE, seeded())["bias"].eq(0).all()
    attention = Attention().init(INPUTS, SIZE, seeded())
    assert all(value.eq(0).all() for name, value in attention.items() if name.endswith("bias"))


def test_an_lstm_that_forgets_nothing_keeps_its_cell():
    """Forget gate wide open, input gate shut: sigma(+-30) is 1 and 0 to float32, so the cell keeps its bits.
    The order of the gates is what the forget bias above relies on.
    """
    params = {name: torch.zeros_like(value) for name, value in LSTM().init(INPUTS, SIZE, seeded()).items()}
    params["bias_ih"][:SIZE] = -30
    params["bias_ih"][SIZE : 2 * SIZE] = 30
    cell = torch.randn(BATCH, SIZE, generator=seeded())
    _, (_, kept) = LSTM()(params, sequence(), (torch.zeros(BATCH, SIZE), cell))
    torch.testing.assert_close(kept, cell, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MEMORIES)
def test_seeds_determine_the_first_weights(name: str):
    first, again, other = (MEMORIES[name].init(INPUTS, SIZE, seeded(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
