"""Training from Python: ``metrics = metarl.fit(experiment)``, in a script, a notebook or a thread."""

import signal
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.session import Callback, execute
from metarl.types import Metrics


def fit(
    experiment: Experiment,
    folder: Path | str | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> list[Metrics]:
    """Trains in a new run folder, as ``metarl train`` does; ``metarl.load(folder)`` has the policy afterwards.

    In the main thread Ctrl-C ends it with a checkpoint, from which ``metarl train --resume`` goes on; so does SIGTERM.

    Args:
        folder: to make; None: one in ``runs/``, named by learner, task, preset, seed and time.
        callbacks: called after each iteration with how many are complete and its metrics; where one returns ``True``,
            the run ends there, complete with a checkpoint. What a callback raises ends it with that of before.
        quiet: print nothing.

    Raises:
        ValueError: a folder that exists, a bad name, or an experiment that cannot run.
        FloatingPointError: training diverged.
        KeyboardInterrupt: Ctrl-C; SystemExit: SIGTERM.

    Returns:
        The metrics of each iteration by TensorBoard tag, in order; besides, ``iteration`` (complete, from 1 on).
    """
    place = None if folder is None else Path(folder)
    run = create_run(experiment, Path("runs") if place is None else place.parent, None if place is None else place.name)
    history: list[Metrics] = []

    def record(iteration: int, metrics: Metrics) -> None:
        history.append({"iteration": float(iteration)} | metrics)

    console = Console(quiet=True) if quiet else None
    code = execute(experiment, run, console=console, callbacks=[record, *callbacks])
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(code)
    return history
