"""A GRU over whole sequences with its backward pass written out: where RL²'s update on a CPU spends its time.

Autograd records a dozen small operations a step and adds to the weights' gradients at each of them. Here PyTorch's
kernel goes forward and leaves the hidden states; the gates are computed from them anew, all steps in one product, and
so are the gradients of the weights, which leaves four operations a step to the way back.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

IN_CACHE = 2**18  # numbers of three gates that the way back works on at a time
LARGEST_STEP = 4096  # hidden units times sequences: beyond, the operations themselves cost more than recording them


def pays(x: Float[Tensor, "batch time in"], state: Float[Tensor, "batch size"], weight: Tensor) -> bool:
    """Whether :class:`FusedGRU` is the faster way: on a CPU, for sequences that gradients go back through."""
    return (
        x.device.type == "cpu"
        and x.shape[1] > 1
        and state.numel() <= LARGEST_STEP
        and torch.is_grad_enabled()
        and weight.requires_grad
        and not torch._C._are_functorch_transforms_active()
    )


def forward(
    x: Float[Tensor, "time batch in"], state: Float[Tensor, "batch size"], weights: list[Tensor]
) -> Float[Tensor, "time batch size"]:
    return torch.gru(x, state.unsqueeze(0), weights, True, 1, 0.0, False, False, False)[0]


class FusedGRU(torch.autograd.Function):
    """Hidden states [time batch size] of ``torch.gru`` for inputs [time batch in], the same bits; first derivatives.

    Gates as PyTorch defines them, with i = W_ih x + b_ih and g = W_hh h + b_hh in three parts: r = s(i_r + g_r),
    z = s(i_z + g_z), n = tanh(i_n + r g_n), and h' = n + z (h - n).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "time batch in"],
        state: Float[Tensor, "batch size"],
        weight_ih: Float[Tensor, "gates in"],
        weight_hh: Float[Tensor, "gates size"],
        bias_ih: Float[Tensor, " gates"],
        bias_hh: Float[Tensor, " gates"],
    ) -> Float[Tensor, "time batch size"]:
        weights = [weight_ih, weight_hh, bias_ih, bias_hh]
        output = forward(x, state, weights)
        ctx.save_for_backward(x, state, *weights, output)
        return output

    @staticmethod
    def backward(ctx: Any, of_output: Float[Tensor, "time batch size"]) -> tuple[Tensor | None, ...]:
        x, state, *weights, output = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of this one is wanted: PyTorch's own steps have it
            inputs = (x, state, *weights)
            again = forward(x, state, weights)
            return torch.autograd.grad(again, inputs, of_output, create_graph=True, allow_unused=True)
        before = torch.cat([state.unsqueeze(0), output[:-1]])
        of_x = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        of_weights = [torch.zeros_like(weight) for weight in weights]
        carried = torch.zeros_like(state)
        num_steps = max(1, IN_CACHE // (3 * state.numel()))
        for start in reversed(range(0, len(x), num_steps)):
            piece = slice(start, start + num_steps)
            carried, rows = _backward(x[piece], before[piece], of_output[piece], carried, weights, of_weights)
            if of_x is not None:
                torch.mm(rows, weights[0], out=of_x[piece].flatten(0, 1))
        return of_x, carried, *of_weights


def _backward(
    x: Float[Tensor, "time batch in"],
    before: Float[Tensor, "time batch size"],
    of_output: Float[Tensor, "time batch size"],
    carried: Float[Tensor, "batch size"],
    weights: list[Tensor],
    of_weights: list[Tensor],
) -> tuple[Float[Tensor, "batch size"], Float[Tensor, "rows gates"]]:
    """Back through a few steps: adds to the weights' gradients, returns those of the state before and of i."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    x, flat = x.flatten(0, 1), before.flatten(0, 1)
    i, g = (
        linear(*pair).view(*before.shape[:2], 3, -1) for pair in ((x, weight_ih, bias_ih), (flat, weight_hh, bias_hh))
    )
    r, z = torch.sigmoid(i[:, :, :2] + g[:, :, :2]).unbind(2)
    n = torch.tanh(i[:, :, 2] + r * g[:, :, 2])
    # gradients of the three parts of g, for a gradient of h' of one
    by_n = (1 - z) * (1 - n * n)
    parts = torch.stack([by_n * g[:, :, 2] * r * (1 - r), (before - n) * z * (1 - z), by_n * r], dim=2)
    along, spread = torch.empty_like(before), torch.empty_like(parts)  # gradients of each h' and of each g
    steps = [each.unbind() for each in (of_output, along, along.unsqueeze(2), parts, spread, spread.flatten(2), z)]
    for of_step, whole, repeated, part, into, row, kept in reversed(list(zip(*steps, strict=True))):
        torch.add(carried, of_step, out=whole)
        torch.mul(repeated, part, out=into)
        carried = torch.addmm(whole * kept, row, weight_hh)
    rows = spread.flatten(2).flatten(0, 1)
    of_weights[1].addmm_(rows.t(), flat)
    of_weights[3].add_(rows.sum(0))
    torch.mul(along, by_n, out=spread[:, :, 2])  # i_n does not pass through r; i_r and i_z are as g_r and g_z
    of_weights[0].addmm_(rows.t(), x)
    of_weights[2].add_(rows.sum(0))
    return carried, rows
