"""The pretended device refuses what CUDA refuses, and counts what makes the host wait: else its tests prove nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pretend_cuda import Pretence, Synchronized, pretend_cuda
from torch.func import vmap

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: nothing to pretend")


@pytest.fixture
def cuda() -> Iterator[Pretence]:
    with pretend_cuda() as pretence:
        yield pretence


def test_the_pretended_device_refuses_what_cuda_refuses(cuda: Pretence) -> None:
    x, host = torch.randn(3, 2, device="cuda"), torch.randn(3, 2)
    mistakes: list[Callable[[], Any]] = [
        lambda: x + host,
        lambda: host @ x.mT,
        lambda: x.where(host > 0, 0.0),
        lambda: host.add_(x),
        lambda: host[x.argmax(0)],
        lambda: torch.stack([x[0, 0], host[0, 0]]),
        lambda: vmap(lambda row: row + host[0])(x),
        lambda: torch.rand(3, generator=torch.Generator("cuda")),
        lambda: torch.rand(3, generator=torch.Generator(), device="cuda"),
        lambda: torch.Generator("cuda").set_state(torch.Generator().get_state()),
        x.numpy,
    ]
    for mistake in mistakes:
        with pytest.raises((RuntimeError, TypeError), match=r"device|wrong size"):
            mistake()
    assert (x + host[0, 0]).is_cuda, "a CPU scalar is an argument of the kernel"
    assert not cuda.waits


def test_the_pretended_device_counts_what_the_host_waits_for(cuda: Pretence) -> None:
    x = torch.arange(4.0, device="cuda")
    waits: list[Callable[[], Any]] = [
        x.max().item,
        lambda: bool(x[0] > 0),
        lambda: int(x[0]),
        x.nonzero,
        lambda: x[x > 0],
        lambda: x.masked_select(x > 0),
        lambda: torch.unique(x),
        x.tolist,
        x.cpu,
        lambda: torch.zeros(4).copy_(x),
        lambda: torch.zeros(4).to("cuda"),
        lambda: torch.tensor(1.0, device="cuda"),
        lambda: x.new_tensor(1.0),
        lambda: x[torch.tensor([0, 1])],
        lambda: x[x.argmax()],
    ]
    for wait in waits:
        before = cuda.waits.total()
        wait()
        assert cuda.waits.total() == before + 1
        with pytest.raises(Synchronized), cuda.no_syncs():
            wait()
    with cuda.no_syncs():
        assert (x * 2 + x.new_full((), 1.0)).where(x > 0, 0.0)[x.argmax(0, keepdim=True)].is_cuda
