"""Files of a run folder, which may be somebody else's: whole when they are written, never through a link, and read only
where they are regular and of a size that makes sense."""

import contextlib
import errno
import os
import stat
from pathlib import Path

NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer would wait for one


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: there is none, it is a link, a pipe or a folder, or it has more than ``most`` bytes.
    """
    with open(open_regular(path, os.O_RDONLY), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return content


def write_whole(path: Path, content: bytes) -> None:
    """Writes so that a crash at any point leaves either the whole new file or what was there; a link at ``path`` is
    replaced, not followed.

    Raises:
        OSError: the disk is full, or the folder cannot be written; what was there is still there.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with open_new(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()  # on a full disk
        raise
    sync_folder(path.parent)


def open_new(path: Path):  # type: ignore[no-untyped-def]  # io.BufferedWriter
    """A file made here and now, for writing; what stood in its place is removed, a link without what it points to."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666), "wb")


def open_regular(path: Path, flags: int) -> int:
    """A descriptor of a regular file, at once.

    Raises:
        OSError: there is none, or it is a link, a pipe or a folder.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link, which a run folder may not hold", str(path))
    descriptor = os.open(path, flags | NO_LINK | AT_ONCE, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return descriptor


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk, where the system can open folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_no_links(*folders: Path) -> None:
    """Refuses folders that hold links: what is written to them could land elsewhere, and what is read come from there.

    Raises:
        ValueError: the first link, by its path.
    """
    for folder in folders:
        if not folder.is_dir():
            continue
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_symlink():
                raise ValueError(f"{entry.path} is a link, which a run folder may not hold: put what it means there")


def set_aside(path: Path) -> Path:
    """Renames what cannot be used to ``<name>.refused``, or ``<name>.refused-2`` and so on where that is taken."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.refused" + (f"-{number}" if number > 1 else ""))):
        number += 1
    os.rename(path, aside)
    return aside
