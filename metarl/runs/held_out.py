"""Tests during training, on held-out tasks and on validation tasks: their metrics, from random streams of their own."""

from torch import Tensor

from metarl import ranks
from metarl.evaluate import held_out_tasks, meta_test, validation_tasks
from metarl.faults import Notices, check_test
from metarl.fewshot.evaluate import held_out_metrics as few_shot_metrics
from metarl.metrics import by_kind
from metarl.runs.experiment import Experiment
from metarl.runs.selection import SCORE
from metarl.runs.supervised import FewShotExperiment
from metarl.seeds import stream_seed
from metarl.train import Progress
from metarl.types import Metrics, inner_scales, remembers


def held_out_metrics(experiment: Experiment, progress: Progress, notice: Notices | None = None) -> Metrics:
    """Mean return, or error, on held-out tasks as the learner adapts; draws from streams of its own."""
    if isinstance(experiment, FewShotExperiment):
        seed = stream_seed(experiment.seed, "meta-test", progress.iteration)
        return few_shot_metrics(
            experiment.learner,
            progress.learner_state,
            experiment.task,
            num_tasks=experiment.eval_tasks,
            seed=seed,
            device=experiment.device,
        )
    tasks = held_out_tasks(experiment.task, experiment.eval_tasks)
    return _tested(experiment, progress, tasks, "meta_test", notice)


def validation_metrics(experiment: Experiment, progress: Progress, notice: Notices | None = None) -> Metrics:
    """The same on validation tasks, and the score that checkpoints are chosen by."""
    tasks = validation_tasks(experiment.task, experiment.validation_tasks)
    found = _tested(experiment, progress, tasks, "validation", notice)
    measure, stages = experiment.validate_by, experiment.stages()
    last = "trial" if measure == "return" else "episode_last"
    name = last if remembers(experiment.learner) else f"step_{len(stages) - 1}"
    return found | {SCORE: found[f"validation/{measure}_{name}"]}


def _tested(
    experiment: Experiment, progress: Progress, tasks: Tensor, tag: str, notice: Notices | None = None
) -> Metrics:
    """What a policy earns on ``tasks``; ``tag`` is of the metrics, and of the streams of action and reset noise."""
    learner, num_tasks, noise = experiment.learner, len(tasks), tag.replace("_", "-")
    stages = experiment.stages()
    num_envs = experiment.episodes // stages[-1].episodes  # as much experience as in training
    env = experiment.make_env(num_tasks, num_envs, stream=f"{noise} resets")
    with ranks.alone():  # the first rank tests, on all tasks
        result = meta_test(
            learner,
            progress.learner_state,
            env,
            tasks,
            scales=inner_scales(stages),
            episodes=stages[-1].episodes,
            seed=stream_seed(experiment.seed, noise, progress.iteration),
        )
    check_test(result, env, experiment.task, tasks, notice)
    returns, successes = result.returns.nanmean((0, 2)), result.solved.nanmean((0, 2))
    if remembers(learner):
        steps, metrics = {"episode_first": 0, "episode_last": -1}, {f"{tag}/return_trial": float(returns.sum())}
    else:
        steps, metrics = {f"step_{k}": k for k in range(len(returns))}, {}
    metrics |= {f"{tag}/return_{name}": float(returns[k]) for name, k in steps.items()}
    if env.spec.has_success:
        metrics |= {f"{tag}/success_{name}": float(successes[k]) for name, k in steps.items()}
        metrics |= by_kind(f"{tag}/success", experiment.task.labels(tasks), result.solved[:, -1])
    return metrics
