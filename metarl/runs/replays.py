"""How checkpoints store a replay: what was added since the last one goes to a file of its own, which is never written
again. A checkpoint names the files that its rings are rebuilt from; a file that none of the kept ones names goes."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.replay import Addition, Replay, Segment
from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointError

FILE = re.compile(r"replay_[0-9a-f]{16}\.ckpt")
FILES = "segments"  # key of what a checkpoint says of a replay, besides its counts


def store(content: Any, directory: Path) -> Any:
    """A checkpoint's content with what it says of each replay in its place, whose new rows are in a file by then."""
    if isinstance(content, Replay):
        return _stored(content, directory)
    if isinstance(content, dict):
        return {name: store(value, directory) for name, value in content.items()}
    return [store(value, directory) for value in content] if isinstance(content, list) else content


def _stored(replay: Replay, directory: Path) -> dict[str, Any]:
    log = replay.log
    if new := log.waiting[: max(0, replay.position - log.stored)]:
        file = checkpoint.save_by_digest(directory, "replay", {"additions": [x._asdict() for x in new]})
        log.segments.append(Segment(file, log.stored, log.stored + len(new), _ends(replay, new)))
        log.stored, log.waiting = log.stored + len(new), log.waiting[len(new) :]
    oldest = torch.maximum(replay.begun, replay.added - replay.capacity)  # rows before it can never be read again
    needed = [s for s in log.segments if s.start < replay.position and bool((s.ends > oldest).any())]
    places = [[s.file, s.start, min(s.stop, replay.position)] for s in needed]
    return {FILES: places, "position": replay.position, "added": replay.added, "begun": replay.begun}


def _ends(replay: Replay, additions: list[Addition]) -> Tensor:
    """Rows that each slot had been given after these; 0 of slots that they are not of."""
    ends = torch.zeros_like(replay.added)
    for addition in additions:
        ends[addition.slot] = addition.start + next(iter(addition.rows.values())).shape[1]
    return ends


def replays_of(content: Any) -> Iterator[dict[str, Any]]:
    """What a checkpoint says of its replays."""
    if isinstance(content, dict):
        if FILES in content:
            yield content
        else:
            for value in content.values():
                yield from replays_of(value)
    elif isinstance(content, list):
        for value in content:
            yield from replays_of(value)


def files_of(content: Any) -> set[str]:
    """The files that a checkpoint names.

    Raises:
        CheckpointError: a name that is none of such a file.
    """
    try:
        found = {file for said in replays_of(content) for file, _, _ in said[FILES]}
        if all(FILE.fullmatch(file) for file in found):
            return found
    except (TypeError, ValueError):
        pass
    raise CheckpointError("the checkpoint names replay files that are none")


def drop_unneeded(directory: Path) -> None:
    """Removes the files that no checkpoint in ``directory`` names; none where one of these cannot be read."""
    there = [path for path in directory.glob("replay_*.ckpt") if FILE.fullmatch(path.name)]
    if not there:
        return
    needed: set[str] = set()
    with contextlib.suppress(CheckpointError):
        for path in checkpoint.kept(directory):
            needed |= files_of(checkpoint.load(path))
        for path in there:
            if path.name not in needed:
                with contextlib.suppress(OSError):  # it costs room, no more
                    path.unlink()


def restored(replay: Replay, said: dict[str, Any], directory: Path | None) -> Replay:
    """An empty replay with the rows that a checkpoint says it had; without ``directory`` it stays empty.

    Raises:
        CheckpointError: a file of its is gone or damaged.
        ValueError: they are of another replay.
    """
    if directory is None:
        return replay
    files_of(said)
    for file, start, stop in said[FILES]:
        additions = _additions(directory, file)[: stop - start]
        if len(additions) < stop - start:
            raise ValueError(f"{file} holds {len(additions)} additions, not {stop - start}")
        for addition in additions:
            _require_of(replay, addition)
        replay = replay.again(additions)
        replay.log.segments.append(Segment(file, start, stop, _ends(replay, additions)))
    replay.log.stored = said["position"]
    for name in ("added", "begun"):
        if not isinstance(said[name], Tensor) or said[name].shape != replay.added.shape:
            raise ValueError(f"its replay has other slots than the run's {len(replay.added)}")
    return Replay(replay.rows, said["added"].clone(), said["begun"].clone(), replay.log, said["position"])


def require_files(content: Any, directory: Path) -> None:
    """Refuses a checkpoint whose replay cannot be read.

    Raises:
        CheckpointError: a file that it names is gone or damaged.
    """
    for file in sorted(files_of(content)):
        _additions(directory, file)


def sizes(state: Any) -> list[str]:
    """A sentence about each replay of a learner's state."""
    found = [(name, value) for name, value in state._asdict().items() if isinstance(value, Replay)]
    return [
        f"{name}: room for {replay.capacity} rows in each of {len(replay.added)} slots, "
        f"{replay.num_bytes / 2**20:.1f} MiB on {replay.device}; a checkpoint writes what was added since the last one"
        for name, replay in found
    ]


def _additions(directory: Path, file: str) -> list[Addition]:
    return [Addition(**addition) for addition in checkpoint.load(directory / file)["additions"]]


def _require_of(replay: Replay, addition: Addition) -> None:
    for name, ring in replay.rows.items():
        if addition.rows[name].shape[2:] != ring.shape[2:] or addition.rows[name].dtype != ring.dtype:
            raise ValueError(f"its replay's {name} is of another shape or type than the run's")
