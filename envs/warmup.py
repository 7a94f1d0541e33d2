"""Kernels compiled before they are needed, by a pool of processes: for the GPU here, or for one that is elsewhere."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock

from metarl.envs.api import ENGINES, find_engine
from metarl.envs.camera import VisibleTask
from metarl.envs.cores import cores
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution

PARTS = ("warp-lang", "mujoco-warp", "mujoco", "metarl-toolkit")
Say = Callable[[str], None]


class Warmed(NamedTuple):
    """What a warm-up found and did."""

    folder: Path
    """``WARP_CACHE_PATH`` of those who use it."""
    kernels: int
    """Modules that the tasks need."""
    compiled: int
    """Those that were not there."""


def warm_up(
    tasks: Sequence[TaskDistribution],
    *,
    device: str = "cuda",
    arch: str = "",
    deterministic: bool = False,
    physics: str = "warp",
    workers: int = 0,
    out: Path | None = None,
    only: str = "",
    say: Say = print,
) -> Warmed:
    """Compiles the kernels of these tasks' first steps that Warp's cache lacks.

    Args:
        device: whose kernels, and whose cache; ``cpu``: those of Warp's CPU device.
        arch: those of a card that is not here, such as ``sm_90`` of an H100. They go to a folder of their own.
        deterministic: those that repeat their bits.
        physics: those of this engine, MuJoCo Warp in one of its kinds.
        workers: processes; 0: as many as cores.
        out: folder to write to, in place of Warp's cache or the card's own.
        only: leave out modules without this in their names.
        say: is told how far it is.

    Raises:
        BadField: an architecture that there is none of, a GPU that is not there, a task without physics, or Warp is
            not installed.
        RuntimeError: a kernel does not compile, or a process was killed; what is compiled stays.
    """
    if find_engine(physics, "cpu") != "warp":
        raise BadField(f"physics is {physics!r}: use one of {', '.join(x for x in ENGINES if 'warp' in x)}")
    for task in tasks:
        if not isinstance(task, VisibleTask):
            raise BadField(f"task is {task.name!r}: it has no physics, so no kernels")
    target = target_of(device, arch)
    folder = out or (Path("metarl-kernels") / key_of(arch, deterministic) if arch else cache_folder())
    from metarl.envs.physics.kernels import packed

    request = packed(tasks) | {"arch": target, "deterministic": deterministic, "only": only, "physics": physics}
    request |= {"workers": workers or cores()}
    say("looking for the kernels that the first steps need")
    counts = {"done": 0, "of": 0, "all": 0}
    with contextlib.closing(_lines_of(request, folder.resolve())) as lines:
        for line in lines:
            counts = json.loads(line)
            about = f", about {counts['seconds']} s" if counts["done"] < counts["of"] else ""
            if counts["of"]:
                say(f"compiling kernels {counts['done']}/{counts['of']}{about}")
    return Warmed(folder, counts["all"], counts["of"])


def _lines_of(request: dict[str, object], folder: Path) -> Generator[str, None, None]:
    """What the process that traces and compiles prints; it ends with this one, by whatever."""
    where = os.environ | {"WARP_CACHE_PATH": str(folder), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    where["PYTHONHASHSEED"] = "0"  # Warp names variables in the order of a set: the same bytes each time
    where["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", "from metarl.envs.physics.kernels import main; main()"],
            env=where,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C is heard here alone
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                json.dump(request, process.stdin)
            yield from process.stdout
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()
        if code:
            errors.seek(0)
            said = errors.read().strip().splitlines()
            raise RuntimeError(said[-1].partition("Error: ")[2] or said[-1] if said else f"exit code {code}")


def warm_if_cold(
    task: TaskDistribution, *, device: str, deterministic: bool, physics: str = "warp", say: Say | None = None
) -> None:
    """Before a first run on a GPU: compiles side by side what would be compiled one by one.

    Once for a task, an architecture, a mode and versions; the processes of a machine wait for the one that does it.
    What goes wrong costs the time alone, for a run compiles what it lacks.
    """
    if not device.startswith("cuda") or not isinstance(task, VisibleTask):
        return
    arch = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    physics = "warp" if physics == "auto" else physics
    say = progress_line(sys.stderr) if say is None else say
    try:
        options = {field.name: getattr(task, field.name) for field in fields(task) if field.name != "horizon"}
        definition = hashlib.sha256(
            f"{type(task).__qualname__}{options}{physics.removeprefix('warp')}".encode()
        ).hexdigest()[:16]
        stamp = cache_folder() / "metarl" / f"{key_of(arch, deterministic)}-{task.name}-{definition}"
        if stamp.exists():
            return
        stamp.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(stamp.parent / "lock"):
            if not stamp.exists():
                warm_up([task], device=device, deterministic=deterministic, physics=physics, say=say)
                stamp.touch()
    except Exception as error:  # whatever it is
        say(f"kernels are compiled as they are needed: {error}")


def progress_line(file: Any, *, seconds: float = 10.0) -> Say:
    """Says what is new in place where the text file is a terminal; else in a line every so many seconds at most."""
    before = -seconds

    def say(line: str) -> None:
        nonlocal before
        counts = re.search(r"(\d+)/(\d+)", line)
        last = counts is None or counts[1] == counts[2]
        if file.isatty():
            print(f"\r\x1b[K{line}", end="\n" if last else "", file=file, flush=True)
        elif last or time.monotonic() - before >= seconds:
            before = time.monotonic()
            print(line, file=file, flush=True)

    return say


def target_of(device: str, arch: str) -> int | None:
    """The number of the architecture to compile for; None: Warp's CPU device.

    Raises:
        BadField: there is no such architecture, or no such device here.
    """
    if not arch:
        if device == "cpu":
            return None
        if not re.fullmatch(r"cuda(:\d+)?", device):
            raise BadField(f"device is {device!r}: use cuda, cuda:0 or cpu")
        if int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
            there = torch.cuda.device_count() or "none"
            raise BadField(f"device is {device!r}: torch sees {there} here, name the card it is for (--arch sm_90)")
        arch = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    import warp

    from metarl.envs.physics import gpu  # noqa: F401 - starts Warp in silence

    known = [f"sm_{number}" for number in warp.get_cuda_supported_archs()]
    if arch not in known:
        raise BadField(f"arch is {arch!r}: Warp {warp.config.version} compiles for {', '.join(known) or 'no GPU'}")
    return int(arch[3:])


def cache_folder() -> Path:
    """Warp's, without the version that Warp adds."""
    if path := os.environ.get("WARP_CACHE_PATH"):
        return Path(path)
    import warp

    from metarl.envs.physics import gpu  # noqa: F401 - decides where it is

    return Path(warp.config.kernel_cache_dir).parent


def key_of(arch: str, deterministic: bool) -> str:
    """What kernels hold for: versions, architecture and mode."""
    versions = []
    for name in PARTS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name}-{importlib.metadata.version(name)}")
    return "-".join([arch, "deterministic" if deterministic else "ordinary", *versions])
