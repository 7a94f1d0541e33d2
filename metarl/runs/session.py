"""Training in a run folder: checkpoints, resuming and stopping."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from metarl.envs.api import TaskEnv
from metarl.evaluate import held_out_tasks, meta_test
from metarl.faults import Notices, check_test
from metarl.fewshot import evaluate as supervised_tests
from metarl.fewshot.train import train_on_examples
from metarl.metrics import by_kind
from metarl.runs import checkpoint, table
from metarl.runs.experiment import Experiment
from metarl.runs.files import require_no_links
from metarl.runs.folder import record_config
from metarl.runs.lock import run_lock
from metarl.runs.logger import ProgressDisplay, ScalarLog
from metarl.runs.process import prepare_process
from metarl.runs.snapshot import capture, initial_progress, restore
from metarl.runs.stopping import StopOnSignal, Stopped
from metarl.runs.supervised import FewShotExperiment
from metarl.seeds import stream_seed
from metarl.train import Progress, train
from metarl.types import Metrics

Callback = Callable[[int, Metrics], object]
"""Called after each iteration with how many are complete and its metrics; ``True`` ends the run there."""


class Enough(Exception):
    """A callback ended the run."""


def execute(
    experiment: Experiment, run: Path, *, console: Console | None = None, callbacks: Sequence[Callback] = ()
) -> int:
    """Trains ``experiment`` in the folder ``run``, from its newest checkpoint where there is one.

    Returns:
        The exit code: 0 when complete, 128 + the signal's number when stopped by it.
    """
    console = Console(soft_wrap=True, markup=False) if console is None else console
    prepare_process(experiment.num_threads, deterministic=experiment.deterministic)
    require_no_links(run, run / checkpoint.DIRECTORY)
    with run_lock(run, console.print), StopOnSignal() as stopping, contextlib.suppress(Stopped):
        try:
            _train_in(run, experiment, stopping, console, callbacks)
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
    run: Path, experiment: Experiment, stopping: StopOnSignal, console: Console, callbacks: Sequence[Callback]
) -> None:
    supervised = isinstance(experiment, FewShotExperiment)
    env = None if supervised else experiment.make_env(experiment.num_tasks, experiment.num_envs, stream="resets")
    progress = initial_progress(experiment)
    _continue_or_begin(experiment, run, progress, env, console)
    with stopping.postponed():
        record_config(experiment, run)
    recording = Recording(experiment, run, progress, env, stopping, console, callbacks)
    try:
        with contextlib.suppress(Enough):
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
    ) -> None:
        self._callbacks = callbacks
        self._experiment, self._progress, self._env, self._stopping = experiment, progress, env, stopping
        self._checkpoints = run / checkpoint.DIRECTORY
        self._scalars = ScalarLog(run, iteration=progress.iteration, env_steps=progress.env_steps, warn=console.print)
        self._display = ProgressDisplay(experiment.iterations, start=progress.iteration, console=console)
        self._snapshot = capture(experiment, progress, env)
        self.notice = Notices(console)

    @property
    def iteration(self) -> int:
        """Iterations complete in the state that a checkpoint would hold now."""
        return int(self._snapshot["iteration"])

    def begin(self) -> None:
        """Notes the state that an interrupted iteration falls back to."""
        with self._stopping.postponed():
            self._snapshot = capture(self._experiment, self._progress, self._env)
            if self.iteration % self._experiment.checkpoint_interval == 0:
                self._save()

    def log(self, metrics: Metrics) -> None:
        if (interval := self._experiment.eval_interval) and self._progress.iteration % interval == 0:
            metrics = metrics | held_out_metrics(self._experiment, self._progress, self.notice)
        with self._stopping.postponed():
            self._scalars.write(self._progress.iteration - 1, self._progress.env_steps, metrics)
            self._display.update(self._progress.iteration - 1, metrics)
        answers = [callback(self._progress.iteration, dict(metrics)) for callback in self._callbacks]
        if any(answer is True for answer in answers):
            raise Enough

    def close(self) -> None:
        """Writes the last checkpoint."""
        with self._stopping.postponed():
            try:
                self._save()
            finally:
                self._scalars.close()
                with contextlib.suppress(OSError):  # of a closed terminal
                    self._display.close()

    def _save(self) -> None:
        checkpoint.save_iteration(self._checkpoints, self.iteration, self._snapshot)


def _continue_or_begin(
    experiment: Experiment, run: Path, progress: Progress, env: TaskEnv | None, console: Console
) -> None:
    if not checkpoint.has_checkpoint(run / checkpoint.DIRECTORY):
        if recorded := table.num_recorded(run):
            raise ValueError(
                f"{run} has {recorded} iterations in progress.csv and no checkpoint to continue from: bring "
                f"its {checkpoint.DIRECTORY}/ back, or start a new run"
            )
        (run / checkpoint.DIRECTORY).mkdir(exist_ok=True)
        console.print(f"recording in {run}")
        return
    content = checkpoint.load_newest(run / checkpoint.DIRECTORY, console.print, put_aside=True)
    restore(experiment, progress, env, content)
    if progress.iteration > experiment.iterations:
        raise ValueError(f"iterations is {experiment.iterations}: {run} has {progress.iteration} already")
    console.print(f"continuing {run} after {progress.iteration} iterations")
    if content.get("device", "cpu") != progress.actions.device.type:
        console.print(
            f"the run comes from another device ({content.get('device', 'cpu')}): its draws differ from now on"
        )
    if content["num_threads"] != torch.get_num_threads():
        console.print(
            f"the run had {content['num_threads']} threads and has {torch.get_num_threads()} now: "
            "it goes on, but its bits may differ from those of an undisturbed run"
        )


def held_out_metrics(experiment: Experiment, progress: Progress, notice: Notices | None = None) -> Metrics:
    """Mean return, or error, on held-out tasks as the learner adapts; draws from streams of its own."""
    learner, num_tasks = experiment.learner, experiment.eval_tasks
    seed = stream_seed(experiment.seed, "meta-test", progress.iteration)
    if isinstance(experiment, FewShotExperiment):
        return supervised_tests.held_out_metrics(
            learner,
            progress.learner_state,
            experiment.task,
            num_tasks=num_tasks,
            seed=seed,
            device=experiment.device,
        )
    num_envs = experiment.num_envs if learner.remembers else experiment.episodes  # as much experience as in training
    env = experiment.make_env(num_tasks, num_envs, stream="meta-test resets")
    tasks = held_out_tasks(experiment.task, num_tasks)
    result = meta_test(
        learner,
        progress.learner_state,
        env,
        tasks,
        scales=() if learner.remembers else [1.0] * max(1, learner.adapt_steps),
        episodes=experiment.episodes_per_env if learner.remembers else 1,
        seed=seed,
    )
    check_test(result, env, experiment.task, tasks, notice)
    returns, successes = result.returns.nanmean((0, 2)), result.solved.nanmean((0, 2))
    if learner.remembers:
        steps, metrics = {"episode_first": 0, "episode_last": -1}, {"meta_test/return_trial": float(returns.sum())}
    else:
        steps, metrics = {f"step_{k}": k for k in range(len(returns))}, {}
    metrics |= {f"meta_test/return_{name}": float(returns[k]) for name, k in steps.items()}
    if env.spec.has_success:
        metrics |= {f"meta_test/success_{name}": float(successes[k]) for name, k in steps.items()}
        metrics |= by_kind("meta_test/success", experiment.task.labels(tasks), result.solved[:, -1])
    return metrics
