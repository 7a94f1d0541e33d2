"""Checkpoint files: atomic to write, refused when damaged, safe to load.

A file is one header line with the SHA-256 of what follows, then ``torch.save`` of tensors and plain values. The
digest detects damage (torch alone returns wrong numbers for most flipped bits), not an attacker.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MAGIC = b"metarl-checkpoint-1 sha256="
HEADER_LENGTH = len(MAGIC) + 64 + 1
DIRECTORY = "checkpoints"  # of a run folder
KEPT = 2  # the newest and the one before it
NAME = re.compile(r"iteration_(\d{8})\.ckpt")


class CheckpointError(Exception):
    """A checkpoint that cannot be used, and why."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes ``content`` (nested dicts and lists of tensors, numbers and strings) so that a crash at any point leaves
    either the whole new file or none of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    header = MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(header + payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path) -> dict[str, Any]:
    """Reads :func:`save`'s content.

    Raises:
        CheckpointError: not a checkpoint of metarl, truncated, or changed since it was written.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror}") from error
    if not raw.startswith(MAGIC) or raw[HEADER_LENGTH - 1 : HEADER_LENGTH] != b"\n":
        raise CheckpointError(f"{path.name} is no metarl checkpoint")
    digest, payload = raw[len(MAGIC) : HEADER_LENGTH - 1], raw[HEADER_LENGTH:]
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise CheckpointError(f"{path.name} is damaged: its contents do not match their SHA-256")
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path.name} holds other things than tensors and plain values") from error
    return content


def save_iteration(directory: Path, iteration: int, content: dict[str, Any]) -> None:
    """Saves the state after ``iteration`` iterations and drops all but the newest two."""
    save(directory / f"iteration_{iteration:08d}.ckpt", content)
    for path in _newest_first(directory)[KEPT:]:
        path.unlink()


def load_newest(directory: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """The newest checkpoint that is whole; each one passed over costs one line to ``warn``.

    Raises:
        CheckpointError: there is none.
    """
    for path in _newest_first(directory):
        try:
            return load(path)
        except CheckpointError as error:
            warn(f"{error}; looking for the checkpoint before it")
    raise CheckpointError(f"no usable checkpoint in {directory}")


def has_checkpoint(directory: Path) -> bool:
    """Whether there is any, whole or damaged."""
    return bool(_newest_first(directory))


def _newest_first(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if NAME.fullmatch(p.name)), reverse=True)
