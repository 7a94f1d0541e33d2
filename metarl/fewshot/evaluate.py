"""Tests of few-shot learners on held-out tasks: error and accuracy before adaptation and after each inner step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.evaluate import HELD_OUT_SEED, validation_tasks
from metarl.fewshot.episodes import FewShotTasks, accuracy, example_loss
from metarl.fewshot.learner import FewShotLearner
from metarl.seeds import stream
from metarl.types import Metrics

TASKS_AT_ONCE = 256
LARGEST_LOSS = 1e9  # of inner steps that diverged, so that a mean over tasks is a number


class FewShotTest(NamedTuple):
    """How one learner predicts the query examples of held-out tasks."""

    loss: Float[Tensor, "task step"]
    """Mean squared error, or cross-entropy [nats]."""
    accuracy: Float[Tensor, "task step"] | None
    """Share of query examples that are classified correctly; None of a regression."""


def few_shot_test(
    learner: FewShotLearner,
    state: Any,
    tasks: FewShotTasks,
    *,
    num_tasks: int,
    scales: Sequence[float],
    episodes: int = 1,
    seed: int,
    device: str = "cpu",
    validation: bool = False,
) -> FewShotTest:
    """Adapts to each held-out task, and predicts other examples of it.

    Tasks come from a seed of their own, which no training run draws from, and examples from ``seed``: learners with the
    same ``seed`` are tested on the same ones.

    Args:
        scales: the step size of each inner step, as a multiple of the learner's; not read by a learner without them.
        episodes: draws of support and query examples of each task, which are averaged.
        validation: test on validation tasks in place of held-out ones.

    Returns:
        A step for each prediction of the learner.
    """
    held_out = tasks.held_out(num_tasks, stream(HELD_OUT_SEED, "tasks"))
    sampled = (validation_tasks(tasks, num_tasks) if validation else held_out).repeat_interleave(episodes, dim=0)
    generator = stream(seed, "few-shot test", device=device)
    losses, accuracies = [], []
    for some in sampled.split(TASKS_AT_ONCE):
        drawn = tasks.draw(some, generator)
        found = learner.predictions(state, drawn, scales)
        loss = torch.stack([example_loss(x, drawn.query.y, drawn.spec) for x in found], dim=1)
        losses.append(loss.nan_to_num(nan=LARGEST_LOSS, posinf=LARGEST_LOSS).clamp(max=LARGEST_LOSS))
        if drawn.spec.discrete:
            accuracies.append(torch.stack([accuracy(x, drawn.query.y) for x in found], dim=1))
    loss = torch.cat(losses).unflatten(0, (num_tasks, episodes)).mean(1)
    right = torch.cat(accuracies).unflatten(0, (num_tasks, episodes)).mean(1) if accuracies else None
    return FewShotTest(loss, right)


def score_metrics(
    learner: FewShotLearner,
    state: Any,
    tasks: FewShotTasks,
    *,
    num_tasks: int,
    seed: int,
    device: str,
    validation: bool = False,
) -> Metrics:
    """Means over held-out tasks, or over validation tasks, by inner step; accuracies stand after errors."""
    scales, tag = [1.0] * learner.adapt_steps, "validation" if validation else "meta_test"
    found = few_shot_test(
        learner, state, tasks, num_tasks=num_tasks, scales=scales, seed=seed, device=device, validation=validation
    )
    measures = {"loss": found.loss} | ({} if found.accuracy is None else {"accuracy": found.accuracy})
    means = {name: values.mean(0).tolist() for name, values in measures.items()}
    return {f"{tag}/{name}_step_{k}": x for name, values in means.items() for k, x in enumerate(values)}
