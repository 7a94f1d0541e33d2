"""TensorBoard event files, written at once: no thread whose failure nobody hears, and no link followed."""

import os
import socket
import time
from itertools import count
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from metarl.runs.files import NO_LINK

_NUMBERS = count()


class EventFile:
    """Scalars over environment steps, in a new file of ``folder``, which is made where there is none."""

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        """``purge_step``: what earlier files of the folder hold from this step on is no longer shown."""
        folder.mkdir(parents=True, exist_ok=True)
        seconds, rest = divmod(time.time_ns(), 10**9)  # files of one second are read in the order of their names
        moment = f"{seconds:010d}.{rest:09d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        path = folder / f"events.out.tfevents.{moment}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666)
        self._writer = RecordWriter(open(descriptor, "wb"))  # noqa: SIM115
        self._add(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._add(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])))

    def add_summary(self, summary: Summary) -> None:
        self._add(Event(summary=summary))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
