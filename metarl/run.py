"""What an experiment script calls: options, run folder, training, checkpoints, resuming and stopping."""

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NoReturn

import torch
import tyro
from rich.console import Console

from metarl import checkpoint
from metarl.evaluate import held_out_tasks, meta_test
from metarl.experiment import Experiment, LearnerT, RunLock, TaskT, create_run, load_experiment
from metarl.logger import ProgressDisplay, ScalarLog
from metarl.streams import stream, stream_seed
from metarl.train import Progress, train
from metarl.types import Metrics

EXIT_BAD_INPUT = 2
CHANGEABLE = ("iterations", "checkpoint_interval", "eval_interval")  # on resume; no other field may differ


class Stopped(Exception):
    """A signal asked the run to end."""


@dataclass(frozen=True)
class Command(Generic[TaskT, LearnerT]):
    """The options of an experiment script: the experiment itself, and where it is recorded."""

    experiment: tyro.conf.OmitArgPrefixes[Experiment[TaskT, LearnerT]]
    runs: Path = Path("runs")
    """Folder that run folders are made in."""
    name: str | None = None
    """Name of the run folder; by default made of algorithm, task, preset, seed and time."""
    resume: Path | None = None
    """A run folder to continue from its newest checkpoint; of the other options only iterations and the intervals
    may then differ from it."""


def main(
    presets: Mapping[str, Experiment], command: type[Command], arguments: list[str] | None = None
) -> None:
    """Parses the command line over the preset it names (the first by default), and trains."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with errors_in_one_sentence():
        resumed = _value_of("--resume", arguments)
        if resumed is not None:
            default = load_experiment(Path(resumed))
        else:
            preset = _value_of("--preset", arguments) or next(iter(presets))
            if preset not in presets:
                raise ValueError(f"preset is {preset!r}: use one of {', '.join(presets)}")
            default = replace(presets[preset], preset=preset)
        options = tyro.cli(
            command,
            default=command(experiment=default),
            args=arguments,
            description=f"Presets: {', '.join(presets)}. The defaults shown are those of {default.preset}.",
        )
        if options.resume is None:
            run = create_run(options.experiment, options.runs, options.name)
        else:
            run = options.resume
            _require_same(default, options.experiment)
        code = execute(options.experiment, run)
    sys.exit(code)


def execute(experiment: Experiment, run: Path, *, console: Console | None = None) -> int:
    """Trains ``experiment`` in the folder ``run``, from its newest checkpoint where there is one.

    Returns:
        The exit code: 0 when complete, 128 + the signal's number when stopped by it.
    """
    console = Console(soft_wrap=True) if console is None else console
    lock = RunLock(run)  # noqa: F841  (held until the function returns)
    prepare_process(experiment.num_threads)
    env = experiment.make_env(experiment.num_tasks, experiment.num_envs, stream="resets")
    progress = initial_progress(experiment, env)
    directory = run / "checkpoints"
    if any(directory.iterdir()):
        restore(progress, env, checkpoint.load_newest(directory, console.print))
        console.print(f"continuing {run} after {progress.iteration} iterations")
    else:
        console.print(f"recording in {run}")
    scalars = ScalarLog(run, iteration=progress.iteration, env_steps=progress.env_steps)
    display = ProgressDisplay(experiment.iterations, start=progress.iteration, console=console)
    snapshot = capture(progress, env)

    def begin() -> None:
        nonlocal snapshot
        with stopping.postponed():
            snapshot = capture(progress, env)
            if progress.iteration % experiment.checkpoint_interval == 0:
                checkpoint.save_iteration(directory, progress.iteration, snapshot)

    def log(metrics: Metrics) -> None:
        iteration = progress.iteration - 1
        if experiment.eval_interval and progress.iteration % experiment.eval_interval == 0:
            metrics = metrics | held_out_metrics(experiment, progress)
        with stopping.postponed():
            scalars.write(iteration, progress.env_steps, metrics)
            display.update(iteration, metrics)

    with StopOnSignal() as stopping:
        try:
            train(
                experiment.learner,
                experiment.task,
                env,
                progress,
                iterations=experiment.iterations,
                episodes=experiment.episodes // experiment.num_envs,
                begin=begin,
                log=log,
            )
            snapshot = capture(progress, env)
        except Stopped:
            pass
        finally:
            display.close()
            scalars.close()
        with stopping.postponed():
            checkpoint.save_iteration(directory, snapshot["iteration"], snapshot)
    if stopping.signal is not None:
        console.print(f"stopped after {snapshot['iteration']} iterations; continue with --resume {run}")
        return 128 + stopping.signal
    console.print(f"done: metarl evaluate {run} · metarl video {run} · tensorboard --logdir {run.parent}")
    return 0


def prepare_process(num_threads: int) -> None:
    """Threads, and a malloc that keeps its memory: fresh pages for every large tensor cost a third of an update."""
    if num_threads:
        torch.set_num_threads(num_threads)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc; other C libraries do without
        if mallopt is not None:
            mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: the largest value it takes
            mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def initial_progress(experiment: Experiment, env: Any) -> Progress:
    """The state before the first iteration, a function of the seed alone."""
    seed, device = experiment.seed, experiment.device
    state = experiment.learner.init(env.spec, stream(seed, "parameters", device=device))
    return Progress(state, tasks=stream(seed, "tasks"), actions=stream(seed, "actions", device=device))


def capture(progress: Progress, env: Any) -> dict[str, Any]:
    """Everything a run continues from, as a checkpoint's content."""
    return {
        "iteration": progress.iteration,
        "env_steps": progress.env_steps,
        "learner": progress.learner_state._asdict(),
        "tasks": progress.tasks.get_state(),
        "actions": progress.actions.get_state(),
        "env": env.state_dict(),
        "num_threads": torch.get_num_threads(),
    }


def restore(progress: Progress, env: Any, content: dict[str, Any]) -> None:
    """Puts ``progress`` and ``env`` where :func:`capture` found them."""
    restore_learner(progress, content)
    progress.tasks.set_state(content["tasks"])
    progress.actions.set_state(content["actions"])
    env.load_state_dict(content["env"])


def restore_learner(progress: Progress, content: dict[str, Any]) -> None:
    """The counters and the learner's state alone, checked against the shapes that the experiment builds."""
    template = progress.learner_state
    try:
        state = type(template)(**content["learner"])
        _require_shapes(template.meta, state.meta)
        device = next(iter(template.meta.values())).device
        moved = {name: value.to(device) for name, value in state.meta.items()}
        progress.learner_state = state._replace(meta=moved)
        progress.iteration, progress.env_steps = int(content["iteration"]), int(content["env_steps"])
    except (KeyError, TypeError, AttributeError) as error:
        raise checkpoint.CheckpointError(f"the checkpoint is of another experiment: {error!r}") from error


def held_out_metrics(experiment: Experiment, progress: Progress) -> Metrics:
    """Mean return on held-out tasks after 0, 1 ... inner steps; draws from streams of its own."""
    learner, num_tasks = experiment.learner, experiment.eval_tasks
    env = experiment.make_env(num_tasks, experiment.num_envs, stream="meta-test resets")
    tasks = held_out_tasks(experiment.task, num_tasks)
    seed = stream_seed(experiment.seed, "meta-test", progress.iteration)
    scales = [1.0] * max(1, learner.adapt_steps)
    result = meta_test(learner, progress.learner_state, env, tasks, scales=scales, seed=seed)
    metrics = {f"meta_test/return_step_{k}": float(x) for k, x in enumerate(result.returns.mean((0, 2)))}
    if env.spec.has_success:
        means = result.successes.float().mean((0, 2))
        metrics |= {f"meta_test/success_step_{k}": float(x) for k, x in enumerate(means)}
    return metrics


class StopOnSignal:
    """Turns SIGTERM and Ctrl-C into :class:`Stopped`, at once or after the section that must not be cut."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._postponed = False

    def __enter__(self) -> "StopOnSignal":
        self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            if not self._postponed:
                raise Stopped

    @contextmanager
    def postponed(self) -> Iterator[None]:
        self._postponed = True
        asked_before = self.signal
        yield
        self._postponed = False
        if self.signal is not None and asked_before is None:
            raise Stopped


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """Ends the program with what is wrong and what would do, without a traceback."""
    try:
        yield
    except (ValueError, checkpoint.CheckpointError) as error:
        _fail(str(error))
    except torch.OutOfMemoryError as error:
        _fail(f"out of memory: lower learner.chunk_samples, num_tasks or num_envs ({error})")


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


def _value_of(flag: str, arguments: list[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(flag + "="):
            return argument.removeprefix(flag + "=")
    return None


def _require_same(recorded: Experiment, asked: Experiment) -> None:
    for f in fields(recorded):
        before, now = getattr(recorded, f.name), getattr(asked, f.name)
        if before != now and f.name not in CHANGEABLE:
            raise ValueError(f"{f.name} is {now!r}, the run to resume has {before!r}: leave it out, or start a new run")


def _require_shapes(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    shapes = {name: tuple(value.shape) for name, value in expected.items()}
    others = {name: tuple(value.shape) for name, value in found.items()}
    if shapes != others:
        raise checkpoint.CheckpointError(f"the checkpoint's parameters are {others}, the experiment's {shapes}")
