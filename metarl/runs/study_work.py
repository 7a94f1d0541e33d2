"""The processes of a study: what is missing is trained and evaluated, some runs at a time, and stopped together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from metarl.runs.files import open_regular
from metarl.runs.stopping import StopOnSignal, Stopped
from metarl.runs.study_folders import StudyRun, begin, mark_evaluation, standing

POLL = 0.2  # seconds between looks at the children
PATIENCE = 120  # seconds that a child has to write its last checkpoint


@dataclass
class Child:
    """A process that trains or evaluates a run."""

    run: StudyRun
    verb: str
    process: subprocess.Popen[bytes]
    log: TextIO
    """What it prints, in the run folder."""
    began: float = field(default_factory=time.monotonic)


@dataclass
class Work:
    """What is to be done, what is being done, and what became of the rest."""

    waiting: list[StudyRun]
    num_threads: int
    """CPU threads of each process."""
    device: str | None = None
    """Where each of them computes; None: where its run was begun."""
    running: list[Child] = field(default_factory=list)
    finished: list[StudyRun] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """The last line of the log, by run."""


def work_off(work: Work, jobs: int, show: Callable[[Work], None]) -> int:
    """Trains and evaluates every waiting run, ``jobs`` at a time; a run that fails does not stop the others.

    Returns:
        The exit code: 0, 1 where a run failed, 128 + the signal's number when stopped by it. Children then have
        written their checkpoints.
    """
    with StopOnSignal() as stopping:
        try:
            while work.waiting or work.running:
                while work.waiting and len(work.running) < jobs:
                    with stopping.postponed():  # no child may begin unnoticed
                        start(work, work.waiting.pop(0))
                show(work)
                time.sleep(POLL)
                with stopping.postponed():
                    for child in [child for child in work.running if child.process.poll() is not None]:
                        end(work, child)
        except Stopped:
            stop(work.running, signal.SIGTERM)
        except BaseException:
            stop(work.running, signal.SIGTERM)
            raise
    show(work)
    return 128 + stopping.signal if stopping.signal is not None else 1 if work.failed else 0


def start(work: Work, run: StudyRun) -> None:
    """Starts the next process of a run, or counts it as finished where nothing is missing."""
    try:
        begin(run)
        found = standing(run)
        if found.done:
            work.finished.append(run)
            return
        verb = "evaluate" if found.trained else "train"
        log = open(run.folder / f"{verb}.log", "a", opener=_no_link)  # noqa: SIM115
    except (OSError, ValueError) as error:
        work.failed[run.name] = str(error)
        return
    process = subprocess.Popen(
        command(run, verb, work.num_threads, work.device),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": str(work.num_threads)},
        start_new_session=True,  # a terminal's Ctrl-C reaches it through us alone, once
    )
    work.running.append(Child(run, verb, process, log))


def _no_link(path: str, flags: int) -> int:
    return open_regular(Path(path), flags)


def command(run: StudyRun, verb: str, num_threads: int, device: str | None = None) -> list[str]:
    """The command line of a process."""
    metarl, code = [sys.executable, "-m", "metarl", verb], run.row.code
    everywhere = [] if code is None else ["--code", str(code)]
    everywhere += [] if device is None else ["--device", device]
    if verb == "evaluate":
        return [*metarl, str(run.folder), *run.row.evaluate, *everywhere]
    length = ["--iterations", str(run.row.experiment.iterations)]
    return [*metarl, "--resume", str(run.folder), "--num-threads", str(num_threads), *length, *everywhere]


def end(work: Work, child: Child) -> None:
    """Counts a process that ended; its run goes on with what is next, before other runs."""
    work.running.remove(child)
    child.log.close()
    run = child.run
    if child.process.returncode != 0:
        work.failed[run.name] = f"{child.verb} ended with {child.process.returncode}: {last_line(Path(child.log.name))}"
        return
    if child.verb == "evaluate":
        mark_evaluation(run)
    found = standing(run)
    if not (found.trained if child.verb == "train" else found.done):
        work.failed[run.name] = f"{child.verb} left nothing to go on with: {last_line(Path(child.log.name))}"
        return
    work.waiting.insert(0, run)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def stop(children: Sequence[Child], number: int) -> None:
    """Sends a signal to every child and waits until all of them have written what they have to."""
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(number)
    deadline = time.monotonic() + PATIENCE
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        child.log.close()
