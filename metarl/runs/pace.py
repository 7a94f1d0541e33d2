"""How long a run takes on this machine, by what it recorded here or by one short iteration."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from metarl.runs.experiment import Experiment
from metarl.runs.process import prepare_process
from metarl.runs.snapshot import initial_progress
from metarl.train import train
from metarl.types import Metrics

STEPS = 20_000  # environment steps of the short iteration, or a little more
RECENT = 20  # iterations


def recorded_rate(progress: Sequence[dict[str, str]]) -> float | None:
    """Environment steps a second of a run's last iterations, their median; None where it has none."""
    rates = [float(rate) for row in progress[-RECENT:] if (rate := row.get("time/env_steps_per_second"))]
    return median(rates) if rates else None


def measured_rate(experiment: Experiment, num_threads: int) -> float:
    """Environment steps a second of one iteration with fewer worlds, updates included."""
    prepare_process(num_threads)
    short = shortened(experiment)
    env = short.make_env(short.num_tasks, short.num_envs, stream="resets")
    rates: list[float] = []

    def log(metrics: Metrics) -> None:
        rates.append(metrics["time/env_steps_per_second"])

    progress = initial_progress(short)
    train(
        short.learner,
        short.task,
        env,
        progress,
        iterations=1,
        episodes=short.episodes_per_env,
        begin=lambda: None,
        log=log,
    )
    return rates[0]


def shortened(experiment: Experiment) -> Experiment:
    """The experiment with fewer worlds of a task, or fewer tasks where each has one world."""
    steps = experiment.num_tasks * experiment.episodes * experiment.task.horizon * (1 + experiment.learner.adapt_steps)
    share = min(1.0, STEPS / steps)
    if experiment.num_envs == 1:
        return replace(experiment, num_tasks=max(10, round(share * experiment.num_tasks)), num_threads=0)
    worlds = max(1, round(share * experiment.num_envs))
    return replace(experiment, num_envs=worlds, episodes=worlds * experiment.episodes_per_env, num_threads=0)
