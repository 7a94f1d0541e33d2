"""Training in a run folder: checkpoints, resuming and stopping."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl import ranks
from metarl.envs.api import TaskEnv
from metarl.faults import Notices
from metarl.fewshot.train import train_on_examples
from metarl.runs import checkpoint, hparams, replays
from metarl.runs.continuing import NO_SELECTION, checkpoints_of, continue_or_begin, of_the_group, require_shares
from metarl.runs.experiment import Experiment
from metarl.runs.files import require_no_links
from metarl.runs.folder import record_config
from metarl.runs.held_out import held_out_metrics, validation_metrics
from metarl.runs.lock import run_lock
from metarl.runs.logger import Display, ProgressDisplay, ScalarLog
from metarl.runs.process import prepare_process
from metarl.runs.recorded import SCORE, Selection
from metarl.runs.selection import KEY
from metarl.runs.snapshot import capture, initial_progress
from metarl.runs.stopping import StopOnSignal, Stopped
from metarl.runs.supervised import FewShotExperiment
from metarl.train import Progress, train
from metarl.types import Metrics

Callback = Callable[[int, Metrics], object]
"""Called after each iteration with how many are complete and its metrics; ``True`` ends the run there."""


class Enough(Exception):
    """A callback ended the run."""


def execute(
    experiment: Experiment,
    run: Path,
    *,
    console: Console | None = None,
    callbacks: Sequence[Callback] = (),
    stopping: StopOnSignal | None = None,
    display: Display | None = None,
) -> int:
    """Trains ``experiment`` in the folder ``run``, from its newest checkpoint where there is one.

    Args:
        stopping: what is told of signals, where that is not this thread.
        display: what shows the progress; None: a bar, or lines.

    Returns:
        The exit code: 0 when complete, 128 + the signal's number when stopped by it.
    """
    console = Console(soft_wrap=True, markup=False) if console is None else console
    if ranks.size() > 1:
        require_shares(experiment)
        console = console if ranks.rank() == 0 else Console(quiet=True)
    prepare_process(experiment.num_threads, deterministic=experiment.deterministic)
    require_no_links(run, run / checkpoint.DIRECTORY)
    lock = run_lock(run, console.print) if ranks.rank() == 0 else contextlib.nullcontext()
    with lock, stopping or StopOnSignal() as stopping, contextlib.suppress(Stopped):
        try:
            _train_in(run, experiment, stopping, console, callbacks, display)
        except RuntimeError as error:
            if ranks.size() == 1 or not of_the_group(error):
                raise
            raise ValueError(
                f"another process of this run ended, so all do: {run} goes on from its checkpoint with --resume {run} "
                f"and as many processes ({ranks.size()})"
            ) from error
        except OSError as error:
            if error.filename is None or run in Path(os.fsdecode(error.filename)).parents:
                raise OSError(error.errno, _lost(run, error)) from error
            raise
    if stopping.signal is not None:
        with contextlib.suppress(OSError):  # of a closed terminal
            console.print(f"stopped; continue with --resume {run}")
        return 128 + stopping.signal
    return 0


def _lost(run: Path, error: OSError) -> str:
    where = f" ({Path(os.fsdecode(error.filename)).name})" if error.filename else ""
    return f"{run} cannot be written any more{where}: {error.strerror}; what it holds continues with --resume"


def _train_in(
    run: Path,
    experiment: Experiment,
    stopping: StopOnSignal,
    console: Console,
    callbacks: Sequence[Callback],
    display: Display | None,
) -> None:
    share = experiment.num_tasks // ranks.size()
    supervised = isinstance(experiment, FewShotExperiment)
    env = None if supervised else experiment.make_env(share, experiment.num_envs, stream="resets")
    progress = initial_progress(experiment)
    for sentence in replays.sizes(progress.learner_state):
        console.print(sentence)
    selection = continue_or_begin(experiment, run, progress, env, console)
    if ranks.rank() == 0:
        with stopping.postponed():
            record_config(experiment, run)
    recording = Recording(experiment, run, progress, env, stopping, console, callbacks, selection, display)
    try:
        with contextlib.suppress(Enough):
            recording.end_where_asked()
            if isinstance(experiment, FewShotExperiment):
                train_on_examples(
                    experiment.learner,
                    experiment.task,
                    progress,
                    num_tasks=experiment.num_tasks,
                    updates=experiment.updates,
                    iterations=experiment.iterations,
                    begin=recording.begin,
                    log=recording.log,
                )
            else:
                assert env is not None
                train(
                    experiment.learner,
                    experiment.task,
                    env,
                    progress,
                    iterations=experiment.iterations,
                    episodes=experiment.episodes_per_env,
                    min_steps=experiment.min_steps,
                    begin=recording.begin,
                    log=recording.log,
                    notice=recording.notice,
                )
        recording.begin()
    finally:
        recording.close()


class Recording:
    """What training leaves in the run folder: scalars, checkpoints, and the progress on the screen."""

    def __init__(
        self,
        experiment: Experiment,
        run: Path,
        progress: Progress,
        env: TaskEnv | None,
        stopping: StopOnSignal,
        console: Console,
        callbacks: Sequence[Callback] = (),
        selection: Selection = NO_SELECTION,
        display: Display | None = None,
    ) -> None:
        self._callbacks, self._console = callbacks, console
        self._selection, self._best_of_kept = selection, [selection.iteration]
        self._experiment, self._progress, self._env, self._stopping = experiment, progress, env, stopping
        self._checkpoints = checkpoints_of(run)
        self._writes = ranks.rank() == 0
        if self._writes:
            place = {"iteration": progress.iteration, "env_steps": progress.env_steps}
            self._scalars = ScalarLog(run, **place, warn=console.print)
            self._scalars.note(hparams.beginning(experiment, run.name))
        self._display = display or ProgressDisplay(experiment.iterations, start=progress.iteration, console=console)
        self._snapshot = self._before = self._capture()
        self.notice = Notices(console)

    @property
    def iteration(self) -> int:
        """Iterations complete in the state that a checkpoint would hold now."""
        return int(self._snapshot["iteration"])

    def begin(self) -> None:
        """Notes the state that an interrupted iteration falls back to."""
        with self._stopping.postponed():
            self._before, self._snapshot = self._snapshot, self._capture()
            if self.iteration == self._selection.iteration > 0:
                content = replays.store(self._snapshot, self._checkpoints)
                checkpoint.save_best(self._checkpoints, self.iteration, content)
            if self.iteration % self._experiment.checkpoint_interval == 0:
                self._save()

    def log(self, metrics: Metrics) -> None:
        if not self._writes:
            self.end_where_asked()
            return
        if (interval := self._experiment.eval_interval) and self._progress.iteration % interval == 0:
            metrics = metrics | held_out_metrics(self._experiment, self._progress, self.notice)
        if (interval := self._experiment.validation_interval) and self._progress.iteration % interval == 0:
            found = validation_metrics(self._experiment, self._progress, self.notice)
            self._selection = self._selection.after(found[SCORE], self._progress.iteration)
            metrics = metrics | found
        with self._stopping.postponed():
            self._scalars.write(self._progress.iteration - 1, self._progress.env_steps, metrics)
            self._display.update(self._progress.iteration - 1, metrics)
        answers = [callback(self._progress.iteration, dict(metrics)) for callback in self._callbacks]
        self.end_where_asked(answers)

    def end_where_asked(self, answers: Sequence[object] = ()) -> None:
        """Ends the run where a callback says so, or validation has not got better for as long as was asked for.

        Both are the first rank's; where they end the run, it ends for all.
        """
        best, impatient = self._selection, self._selection.exhausted(self._experiment.patience)
        if impatient:
            self._console.print(
                f"stopped early after {self._progress.iteration} iterations: none of the last {best.worse} validations "
                f"is better than that of iteration {best.iteration} ({best.score:.4g}); metarl evaluate --checkpoint "
                "best tests that one"
            )
        if any(ranks.everyone(impatient or any(answer is True for answer in answers))):
            raise Enough

    def close(self) -> None:
        """Writes the last checkpoint."""
        with self._stopping.postponed():
            try:
                self._save()
                if self._writes:
                    self._scalars.note(hparams.ending(complete=self.iteration >= self._experiment.iterations))
            finally:
                if self._writes:
                    self._scalars.close()
                with contextlib.suppress(OSError):  # of a closed terminal
                    self._display.close()

    def _save(self) -> None:
        if ranks.size() > 1:  # a stopped rank may be an iteration ahead of another: all have the one before
            self._save_iteration(self._before)
        self._save_iteration(self._snapshot)
        if self._selection.iteration:
            self._best_of_kept = [*self._best_of_kept, self._snapshot.get(KEY, {}).get("iteration", 0)][
                -checkpoint.KEPT :
            ]
            checkpoint.keep_best(self._checkpoints, {*self._best_of_kept, self._selection.iteration})
        replays.drop_unneeded(self._checkpoints)

    def _save_iteration(self, snapshot: dict[str, Any]) -> None:
        content = replays.store(snapshot, self._checkpoints)
        checkpoint.save_iteration(self._checkpoints, int(snapshot["iteration"]), content)

    def _capture(self) -> dict[str, Any]:
        found = capture(self._experiment, self._progress, self._env)
        return found | {KEY: self._selection._asdict()} if self._selection != NO_SELECTION else found
