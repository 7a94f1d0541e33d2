"""The written-out backward pass of the GRU against PyTorch's own, piece by piece, and one order further."""

import pytest
import torch
from torch import Tensor

from metarl.networks import fused_gru
from metarl.networks.fused_gru import FusedGRU, forward, pays
from metarl.networks.memory import GRU

TIME, BATCH, INPUTS, SIZE = 7, 4, 3, 8

pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(dtype: torch.dtype, *, time: int = TIME) -> tuple[Tensor, ...]:
    """Inputs [time batch in], a state that is not empty, and the four weights, biases away from zero."""
    generator = torch.Generator().manual_seed(0)
    gates = 3 * SIZE
    shapes = [(time, BATCH, INPUTS), (BATCH, SIZE), (gates, INPUTS), (gates, SIZE), (gates,), (gates,)]
    return tuple(torch.randn(shape, generator=generator, dtype=dtype).mul(0.5).requires_grad_() for shape in shapes)


def torchs(x: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
    return forward(x, state, list(weights))


@pytest.mark.parametrize("in_cache", [1, 3 * 3 * BATCH * SIZE, 2**18], ids=["step by step", "pieces of 3", "at once"])
@pytest.mark.parametrize("used", ["all steps", "the last one"])
def test_gradients_are_torchs(in_cache: int, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_gru, "IN_CACHE", in_cache)
    inputs = arguments(torch.float64)
    weight = torch.randn(TIME, BATCH, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if used == "the last one":
        weight[:-1] = 0.0
    ours, theirs = FusedGRU.apply(*inputs), torchs(*inputs)
    assert torch.equal(ours, theirs)
    for mine, expected in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_differences() -> None:
    assert torch.autograd.gradcheck(FusedGRU.apply, arguments(torch.float64, time=3), fast_mode=True)


def test_second_derivatives_are_differences_of_first_ones() -> None:
    assert torch.autograd.gradgradcheck(FusedGRU.apply, arguments(torch.float64, time=3), fast_mode=True)


def test_the_memory_takes_the_faster_way_where_gradients_flow_and_gives_the_same() -> None:
    x, state, *weights = arguments(torch.float32)
    params = dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True))
    x = x.detach().transpose(0, 1)
    assert pays(x, state, weights[0])
    output, last = GRU()(params, x, state)
    assert type(output.grad_fn.next_functions[0][0]).__name__ == "FusedGRUBackward" or "FusedGRU" in repr(
        output.grad_fn
    )
    with torch.no_grad():
        assert not pays(x, state, weights[0])
        assert torch.equal(GRU()(params, x, state)[0], output)
    assert torch.equal(last, output[:, -1])
    assert not pays(x[:, :1], state, weights[0])
    assert not pays(x, state.new_zeros(BATCH, fused_gru.LARGEST_STEP), weights[0])


def test_under_transforms_torchs_own_steps_remain() -> None:
    """``torch.func`` would ask the function for rules that it does not have."""
    x, state, *weights = (each.detach() for each in arguments(torch.float32))

    def loss(weight_ih: Tensor) -> Tensor:
        params = dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), [weight_ih, *weights[1:]], strict=True))
        return GRU()(params, x.transpose(0, 1), state)[0].square().sum()

    found = torch.func.grad(loss)(weights[0])
    leaf = weights[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(found, expected)


def test_inputs_that_lie_sequence_by_sequence_get_their_gradients() -> None:
    """As a policy passes them: [batch time in], turned."""
    x, state, *weights = arguments(torch.float64)
    turned = x.detach().transpose(0, 1).contiguous().requires_grad_()
    (found,) = torch.autograd.grad(FusedGRU.apply(turned.transpose(0, 1), state, *weights).sum(), [turned])
    (expected,) = torch.autograd.grad(torchs(x, state, *weights).sum(), [x])
    torch.testing.assert_close(found.transpose(0, 1), expected, rtol=1e-12, atol=1e-12)
