"""Streams of work on a GPU: what is in different ones may run side by side."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


class Streams:
    """Lets the batches of a step run side by side on a GPU; on the CPU, where torch has no streams, it does nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: list[torch.cuda.Stream] = []

    @contextmanager
    def forked(self, number: int) -> Iterator[None]:
        """``number`` streams that wait for what was asked for so far; what comes after waits for all of them."""
        if self._device.type == "cuda":
            self._streams += [torch.cuda.Stream(self._device) for _ in range(number - len(self._streams))]
            for stream in self._streams[:number]:
                stream.wait_stream(torch.cuda.current_stream(self._device))
        yield
        for stream in self._streams:
            torch.cuda.current_stream(self._device).wait_stream(stream)

    def on(self, i: int) -> AbstractContextManager[Any]:
        """What is asked for inside goes to stream ``i``."""
        return torch.cuda.stream(self._streams[i]) if self._streams else nullcontext()
