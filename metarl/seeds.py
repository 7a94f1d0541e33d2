"""Independent random streams of one seed, by name, so that a change to one consumer leaves the others alone."""

import zlib

import numpy as np
import torch


def stream_seed(seed: int, *name: str | int) -> int:
    """A 63-bit seed for the stream called ``name``; different names give independent streams."""
    words = [zlib.crc32(str(part).encode()) for part in name]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def stream(seed: int, *name: str | int, device: str = "cpu") -> torch.Generator:
    """A generator at the start of the stream called ``name``."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *name))
