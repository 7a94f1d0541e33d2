"""How long a run takes on this machine, by what it recorded here or by one short iteration."""

from dataclasses import replace

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import TRPO
from metarl.algorithms.rl2 import RL2
from metarl.algorithms.soft import SoftLearner
from metarl.algorithms.varibad import VariBAD
from metarl.runs.experiment import Experiment
from metarl.runs.process import prepare_process
from metarl.runs.snapshot import initial_progress
from metarl.runs.studies import steps_of_iteration
from metarl.train import train
from metarl.types import Metrics

STEPS = 8_000  # environment steps of the short iteration, about
SHORTEST = 10  # steps of its episodes


def measured_rate(experiment: Experiment, num_threads: int) -> float:
    """Environment steps a second of one iteration in miniature, updates included."""
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
    """The experiment with shorter episodes, and fewer worlds where that is not enough; TRPO's curvature shrinks alike,
    and RL²'s chunks, so that an update takes as many gradient steps; those on a replay, whose size does not follow the
    batch's, become fewer, and begin at once.

    Worlds go last: a step of a few of them costs as much as one of many.
    """
    learner, task = experiment.learner, experiment.task
    share = min(1.0, STEPS / steps_of_iteration(experiment))
    horizon = min(task.horizon, max(SHORTEST, round(share * task.horizon)))
    short = replace(experiment, task=replace(task, horizon=horizon), num_threads=0)
    left = min(1.0, STEPS / steps_of_iteration(short))
    if short.num_envs == 1:
        short = replace(short, num_tasks=min(short.num_tasks, max(10, round(left * short.num_tasks))))
    else:
        policies = learner.describe().num_policies
        worlds = policies * max(1, round(left * short.num_envs / policies))
        short = replace(short, num_envs=worlds, episodes=worlds * short.episodes_per_env)
    if isinstance(learner, MAML) and isinstance(learner.outer, TRPO):
        samples = max(100, round(share * learner.outer.curvature_samples))
        short = replace(short, learner=replace(learner, outer=replace(learner.outer, curvature_samples=samples)))
    if isinstance(learner, RL2) and learner.chunk_steps:
        steps = max(1, round(learner.chunk_steps * horizon / task.horizon))
        overlap = min(steps - 1, round(learner.chunk_overlap * horizon / task.horizon))
        short = replace(short, learner=replace(learner, chunk_steps=steps, chunk_overlap=overlap))
    if isinstance(learner, SoftLearner):
        fewer = max(1, round(share * learner.gradient_steps))
        short = replace(short, learner=replace(learner, warmup_steps=0, gradient_steps=fewer))
    if isinstance(learner, VariBAD) and learner.elbo.replay_episodes and learner.elbo.belief_updates:
        elbo = replace(learner.elbo, belief_updates=max(1, round(share * learner.elbo.belief_updates)))
        short = replace(short, learner=replace(learner, elbo=elbo))
    return short
