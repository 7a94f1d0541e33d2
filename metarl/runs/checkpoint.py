"""Checkpoint files: atomic to write, refused when damaged, safe to load.

A file is one header line with the SHA-256 of what follows, then ``torch.save`` of tensors and plain values. The
digest detects damage (torch alone returns wrong numbers for most flipped bits), not an attacker; whoever forges one
can choose numbers, but no code runs, and no more memory is taken than the file is long.
"""

import contextlib
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from metarl.runs.files import read_file, set_aside, write_whole

MAGIC = b"metarl-checkpoint-1 sha256="
HEADER_LENGTH = len(MAGIC) + 64 + 1
DIRECTORY = "checkpoints"  # of a run folder
KEPT = 2  # the newest and the one before it
NAME = re.compile(r"iteration_(\d{8,10})\.ckpt")
BEST = re.compile(r"best_(\d{8,10})\.ckpt")  # by validation; kept beside the newest two
MOST_BYTES = 1 << 33


class CheckpointError(Exception):
    """A checkpoint that cannot be used, and why."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes ``content`` (nested dicts and lists of tensors, numbers and strings) so that a crash at any point leaves
    either the whole new file or none of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    write_whole(path, MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def load(path: Path) -> dict[str, Any]:
    """Reads :func:`save`'s content.

    Raises:
        CheckpointError: not a checkpoint of metarl, truncated, or changed since it was written.
    """
    try:
        raw = read_file(path, MOST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror}") from error
    if not raw.startswith(MAGIC) or raw[HEADER_LENGTH - 1 : HEADER_LENGTH] != b"\n":
        raise CheckpointError(f"{path.name} is no metarl checkpoint")
    digest, payload = raw[len(MAGIC) : HEADER_LENGTH - 1], raw[HEADER_LENGTH:]
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise CheckpointError(f"{path.name} is damaged: its contents do not match their SHA-256")
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                raise ValueError("compressed, as torch never writes it: it could be of any size")
        content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        _require_plain(content)
    except Exception as error:
        raise CheckpointError(f"{path.name} holds other things than tensors and plain values") from error
    return content


def _require_plain(content: Any) -> None:
    """Refuses what weights_only lets pass and metarl never saves: other classes, cycles, tensors without their numbers.

    Raises:
        ValueError: there is such a thing.
    """
    todo, seen = [content], set()
    if type(content) is not dict:
        raise ValueError("no dict")
    while todo:
        value = todo.pop()
        if type(value) in (dict, list, tuple):
            if len(value) and id(value) in seen:
                continue
            seen.add(id(value))
            todo += [*value, *value.values()] if type(value) is dict else value
        elif type(value) is torch.Tensor:
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise ValueError("a tensor of another layout")
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError("a tensor of more numbers than the file holds")
        elif value is not None and type(value) not in (bool, int, float, str):
            raise ValueError(f"a {type(value).__name__}")


def save_iteration(directory: Path, iteration: int, content: dict[str, Any]) -> None:
    """Saves the state after ``iteration`` iterations and drops all but the newest two up to it."""
    path = directory / f"iteration_{iteration:08d}.ckpt"
    if path.is_dir() and not path.is_symlink():
        set_aside(path)
    save(path, content)
    for old in [path for path in _newest_first(directory) if number_of(path) <= iteration][KEPT:]:
        with contextlib.suppress(OSError):  # it costs room, no more
            old.unlink()


def save_best(directory: Path, iteration: int, content: dict[str, Any]) -> None:
    """Saves the state that is the best by validation so far; those before it stay until :func:`keep_best`."""
    save(directory / f"best_{iteration:08d}.ckpt", content)


def save_by_digest(directory: Path, kind: str, content: dict[str, Any]) -> str:
    """Saves what checkpoints refer to, under a name that tells its content; says the name."""
    path = directory / f"{kind}.new"
    save(path, content)
    digest = path.read_bytes()[len(MAGIC) : len(MAGIC) + 16].decode()
    name = f"{kind}_{digest}.ckpt"
    path.replace(directory / name)
    return name


def kept(directory: Path) -> list[Path]:
    """The newest checkpoints and the best ones by validation."""
    return [path for path in directory.iterdir() if NAME.fullmatch(path.name) or BEST.fullmatch(path.name)]


def keep_best(directory: Path, iterations: Collection[int]) -> None:
    """Drops the best states of the past that no kept checkpoint calls the best any more."""
    for path in directory.glob("best_*.ckpt"):
        if (found := BEST.fullmatch(path.name)) and int(found[1]) not in iterations:
            with contextlib.suppress(OSError):
                path.unlink()


def load_iteration(directory: Path, iteration: int) -> dict[str, Any]:
    """The state after so many iterations, where it is one of the newest two or the best.

    Raises:
        CheckpointError: there is none, it is damaged, or of another iteration.
    """
    require_folder(directory)
    names = [f"{kind}_{iteration:08d}.ckpt" for kind in ("iteration", "best")]
    there = [directory / name for name in names if os.path.lexists(directory / name)]
    if not there:
        kept = sorted(
            {int(n[1]) for p in directory.glob("*.ckpt") if (n := NAME.fullmatch(p.name) or BEST.fullmatch(p.name))}
        )
        known = ", ".join(map(str, kept)) or "none"
        raise CheckpointError(f"{directory} has no checkpoint of iteration {iteration}: it has {known}")
    return _load_named(there[0], iteration)


def _load_named(path: Path, iteration: int) -> dict[str, Any]:
    content = load(path)
    if content.get("iteration") != iteration:
        raise CheckpointError(f"{path.name} is of iteration {content.get('iteration')!r}: it was renamed")
    return content


def load_newest(
    directory: Path,
    warn: Callable[[str], None],
    *,
    put_aside: bool = False,
    require: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """The newest checkpoint that is whole; each one passed over costs one line to ``warn``.

    Args:
        put_aside: rename what is passed over, so that it is never again taken for a checkpoint; for the process that
            writes to the run.
        require: raises CheckpointError where something else that a checkpoint needs is not whole.

    Raises:
        CheckpointError: there is none.
    """
    require_folder(directory)
    for path in _newest_first(directory):
        try:
            content = _load_named(path, number_of(path))
            require(content)
            return content
        except CheckpointError as error:
            what = str(error)
            if put_aside:
                with contextlib.suppress(OSError):  # then it is passed over once more
                    what += f" and is now {set_aside(path).name}"
            warn(f"{what}; looking for the checkpoint before it")
    raise CheckpointError(f"no usable checkpoint in {directory}")


def require_folder(directory: Path) -> None:
    """Refuses a link in the place of a folder of checkpoints.

    Raises:
        CheckpointError: it is one.
    """
    if directory.is_symlink():
        raise CheckpointError(f"{directory} is a link, which a run folder may not hold: put the folder itself there")


def has_checkpoint(directory: Path) -> bool:
    """Whether there is any, whole or damaged."""
    return bool(_newest_first(directory))


def number_of(path: Path) -> int:
    """The iteration that a checkpoint's name says."""
    found = NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def _newest_first(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if NAME.fullmatch(p.name)), key=number_of, reverse=True)
