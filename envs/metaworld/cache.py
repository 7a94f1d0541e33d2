"""Tables of numbers on disk, which can be computed again: a file that is missing, damaged or foreign is no file.

A file is the SHA-256 of what follows; then a line of JSON, the shape of each column; then the columns, float64. Nothing
in it is code, and its size says at once how much there is to read.
"""

import hashlib
import json
import math
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LARGEST = 2**28  # bytes of a file
DIGEST = hashlib.sha256().digest_size

Columns = dict[str, NDArray[np.float64]]


def folder() -> Path | None:
    """``METARL_CACHE``, else ``metarl`` in the user's cache folder; None where the user has no home."""
    if root := os.environ.get("METARL_CACHE"):
        return Path(root)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "metarl"
    except RuntimeError:  # neither HOME nor an entry in passwd
        return None


def read(path: Path) -> Columns | None:
    """The columns of a file as it was written; None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                return None
            content = file.read(LARGEST)
    except OSError:
        return None
    digest, content = content[:DIGEST], content[DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        return _decode(content)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):  # right digest, wrong content
        return None


def write(path: Path, columns: Columns) -> None:
    """Keeps the columns; a disk that cannot be written costs the next process a second, no more."""
    content = _encode(columns)
    if DIGEST + len(content) > LARGEST:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")  # made exclusively, follows no link
        try:
            with open(descriptor, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _encode(columns: Columns) -> bytes:
    shapes = {name: column.shape for name, column in columns.items()}
    numbers = (np.ascontiguousarray(column, dtype="<f8").tobytes() for column in columns.values())
    return json.dumps(shapes).encode() + b"\n" + b"".join(numbers)


def _decode(content: bytes) -> Columns:
    header, _, rest = content.partition(b"\n")
    numbers = np.frombuffer(rest, dtype="<f8").astype(np.float64)
    columns, begin = {}, 0
    for name, shape in json.loads(header).items():
        if any(type(length) is not int or length < 0 for length in shape):
            raise ValueError(f"the shape of {name} is {shape}")
        end = begin + math.prod(shape)
        columns[name], begin = numbers[begin:end].reshape(shape), end
    if begin != len(numbers):
        raise ValueError("there are more numbers than shapes")
    return columns
