"""What an experiment script calls: options, run folder, training, checkpoints, resuming and stopping."""

import contextlib
import ctypes
import errno
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NoReturn

import torch
import tyro
from rich.console import Console

from envs.api import BadField, TaskEnv
from metarl import checkpoint
from metarl.config import leaves, to_json
from metarl.episodes import by_kind
from metarl.evaluate import held_out_tasks, meta_test
from metarl.experiment import (
    CHANGEABLE,
    Experiment,
    LearnerT,
    TaskT,
    create_run,
    load_experiment,
    record_config,
    run_lock,
)
from metarl.logger import ProgressDisplay, ScalarLog, num_recorded
from metarl.snapshot import capture, initial_progress, restore
from metarl.stopping import StopOnSignal, Stopped
from metarl.streams import stream_seed
from metarl.train import Progress, train
from metarl.types import Metrics

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130


@dataclass(frozen=True)
class Command(Generic[TaskT, LearnerT]):
    """The options of an experiment script: the experiment itself, and where it is recorded."""

    experiment: tyro.conf.OmitArgPrefixes[Experiment[TaskT, LearnerT]]
    runs: Path = Path("runs")
    """Folder that new run folders are made in."""
    name: str | None = None
    """Name of the run folder; by default made of algorithm, task, preset, seed and time."""
    resume: Path | None = None
    """A run folder to continue from its newest checkpoint; of the other options only iterations, the intervals,
    device, physics, num_threads and deterministic may then differ from it."""


def main(presets: Mapping[str, Experiment], command: Any, arguments: list[str] | None = None) -> None:
    """Parses the command line over the preset it names (the first by default), and trains."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with errors_in_one_sentence():
        resumed = _value_of("--resume", arguments)
        if resumed is not None:
            default = load_experiment(Path(resumed), device=_value_of("--device", arguments))
        else:
            preset = _value_of("--preset", arguments) or next(iter(presets))
            if preset not in presets:
                raise ValueError(f"preset is {preset!r}: use one of {', '.join(presets)}")
            default = replace(presets[preset], preset=preset)
        description = f"Presets: {', '.join(presets)}. The defaults shown are those of {default.preset}."
        options = parse(command, arguments, default=command(experiment=default), description=description)
        if options.resume is None:
            run = create_run(options.experiment, options.runs, options.name)
        else:
            run = options.resume
            if options.name is not None:
                raise ValueError(f"name is {options.name!r}: a resumed run keeps its own, leave it out")
            _require_same(default, options.experiment)
        exit_code = execute(options.experiment, run)
    if exit_code == 0:
        code = f" --code {sys.argv[0]}" if type(default.task).__module__ == "__main__" else ""
        print(f"done: metarl evaluate {run}{code} · metarl video {run}{code} · tensorboard --logdir {run.parent}")
    sys.exit(exit_code)


def execute(experiment: Experiment, run: Path, *, console: Console | None = None) -> int:
    """Trains ``experiment`` in the folder ``run``, from its newest checkpoint where there is one.

    Returns:
        The exit code: 0 when complete, 128 + the signal's number when stopped by it.
    """
    console = Console(soft_wrap=True) if console is None else console
    prepare_process(experiment.num_threads, deterministic=experiment.deterministic)
    with run_lock(run), StopOnSignal() as stopping, contextlib.suppress(Stopped):
        _train_in(run, experiment, stopping, console)
    if stopping.signal is not None:
        console.print(f"stopped; continue with --resume {run}")
        return 128 + stopping.signal
    return 0


def _train_in(run: Path, experiment: Experiment, stopping: StopOnSignal, console: Console) -> None:
    env = experiment.make_env(experiment.num_tasks, experiment.num_envs, stream="resets")
    progress = initial_progress(experiment)
    _continue_or_begin(experiment, run, progress, env, console)
    with stopping.postponed():
        record_config(experiment, run)
    recording = Recording(experiment, run, progress, env, stopping, console)
    try:
        train(
            experiment.learner,
            experiment.task,
            env,
            progress,
            iterations=experiment.iterations,
            episodes=experiment.episodes_per_env,
            begin=recording.begin,
            log=recording.log,
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
        env: TaskEnv,
        stopping: StopOnSignal,
        console: Console,
    ) -> None:
        self._experiment, self._progress, self._env, self._stopping = experiment, progress, env, stopping
        self._checkpoints = run / checkpoint.DIRECTORY
        self._scalars = ScalarLog(run, iteration=progress.iteration, env_steps=progress.env_steps)
        self._display = ProgressDisplay(experiment.iterations, start=progress.iteration, console=console)
        self._snapshot = capture(progress, env)

    @property
    def iteration(self) -> int:
        """Iterations complete in the state that a checkpoint would hold now."""
        return int(self._snapshot["iteration"])

    def begin(self) -> None:
        """Notes the state that an interrupted iteration falls back to."""
        with self._stopping.postponed():
            self._snapshot = capture(self._progress, self._env)
            if self.iteration % self._experiment.checkpoint_interval == 0:
                self._save()

    def log(self, metrics: Metrics) -> None:
        interval = self._experiment.eval_interval
        if interval and self._progress.iteration % interval == 0:
            metrics = metrics | held_out_metrics(self._experiment, self._progress)
        with self._stopping.postponed():
            self._scalars.write(self._progress.iteration - 1, self._progress.env_steps, metrics)
            self._display.update(self._progress.iteration - 1, metrics)

    def close(self) -> None:
        """Writes the last checkpoint."""
        with self._stopping.postponed():
            self._display.close()
            self._scalars.close()
            self._save()

    def _save(self) -> None:
        checkpoint.save_iteration(self._checkpoints, self.iteration, self._snapshot)


def _continue_or_begin(experiment: Experiment, run: Path, progress: Progress, env: TaskEnv, console: Console) -> None:
    if not checkpoint.has_checkpoint(run / checkpoint.DIRECTORY):
        if recorded := num_recorded(run):
            raise ValueError(
                f"{run} has {recorded} iterations in progress.csv and no checkpoint to continue from: bring "
                f"its {checkpoint.DIRECTORY}/ back, or start a new run"
            )
        (run / checkpoint.DIRECTORY).mkdir(exist_ok=True)
        console.print(f"recording in {run}")
        return
    content = checkpoint.load_newest(run / checkpoint.DIRECTORY, console.print)
    restore(experiment, progress, env, content)
    if progress.iteration > experiment.iterations:
        raise ValueError(f"iterations is {experiment.iterations}: {run} has {progress.iteration} already")
    console.print(f"continuing {run} after {progress.iteration} iterations")
    if content.get("device", "cpu") != env.device.type:
        console.print(
            f"the run comes from another device ({content.get('device', 'cpu')}): its draws differ from now on"
        )
    if content["num_threads"] != torch.get_num_threads():
        console.print(
            f"the run had {content['num_threads']} threads and has {torch.get_num_threads()} now: "
            "it goes on, but its bits may differ from those of an undisturbed run"
        )


def prepare_process(num_threads: int, *, deterministic: bool = False) -> None:
    """Threads, and a malloc that keeps its memory: fresh pages for every large tensor cost a third of an update."""
    if num_threads:
        torch.set_num_threads(num_threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(deterministic)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc; other C libraries do without
        if mallopt is not None:
            mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: the largest value it takes
            mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def held_out_metrics(experiment: Experiment, progress: Progress) -> Metrics:
    """Mean return on held-out tasks as the learner adapts; draws from streams of its own."""
    learner, num_tasks = experiment.learner, experiment.eval_tasks
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
        seed=stream_seed(experiment.seed, "meta-test", progress.iteration),
    )
    returns, successes = result.returns.mean((0, 2)), result.successes.float().mean((0, 2))
    if learner.remembers:
        steps = {"episode_first": 0, "episode_last": -1}
        metrics = {"meta_test/return_trial": float(returns.sum())}
    else:
        steps, metrics = {f"step_{k}": k for k in range(len(returns))}, {}
    metrics |= {f"meta_test/return_{name}": float(returns[k]) for name, k in steps.items()}
    if env.spec.has_success:
        metrics |= {f"meta_test/success_{name}": float(successes[k]) for name, k in steps.items()}
        metrics |= by_kind("meta_test/success", experiment.task.labels(tasks), result.successes[:, -1])
    return metrics


def parse(form: Any, arguments: list[str] | None, **options: Any) -> Any:
    """``tyro.cli``, but a value that a field refuses raises its :class:`envs.api.BadField` in place of a drawn box."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(form, args=arguments, **options)
    except SystemExit as exit_request:
        error: BaseException | None = exit_request
        while error is not None:
            if isinstance(error, BadField):
                raise error from None
            error = error.__cause__ or error.__context__
        sys.stderr.write(complaint.getvalue())
        raise


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """Ends the program with what is wrong and what would do, without a traceback."""
    try:
        yield
    except (ValueError, FloatingPointError, checkpoint.CheckpointError) as error:
        _fail(str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _fail(f"{error}; a run that it stopped continues with --resume once that is mended" if full else str(error))
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        wanted = str(error).partition(". GPU")[0]  # what follows is a paragraph about the allocator
        advice = "start a run with lower num_envs, num_tasks or episodes, or with MAML learner.chunk_samples"
        _fail(f"out of memory: {advice} ({wanted})")


def _fail(message: str, code: int = EXIT_BAD_INPUT) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _value_of(flag: str, arguments: list[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(flag + "="):
            return argument.removeprefix(flag + "=")
    return None


def _require_same(recorded: Experiment, asked: Experiment) -> None:
    before, now = leaves(to_json(recorded)), leaves(to_json(asked))
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name) and name not in CHANGEABLE:
            advice = "leave it out, or start a new run"
            raise ValueError(f"{name} is {now.get(name)!r}, the run to resume has {before.get(name)!r}: {advice}")
