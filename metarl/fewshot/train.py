"""The loop over supervised tasks. It is not :func:`metarl.train.train`, for nothing acts: a task's examples are drawn,
not sampled by what adapts to them, so that rollouts, credit and episodes have no part in it. Progress, recording,
checkpoints and stopping are the same."""

from collections.abc import Callable

from metarl.fewshot.episodes import Episodes, FewShotTasks, accuracy, example_loss
from metarl.fewshot.learner import FewShotLearner
from metarl.train import MAX_SKIPPED, Progress, Stopwatch
from metarl.types import Metrics


def train_on_examples(
    learner: FewShotLearner,
    tasks: FewShotTasks,
    progress: Progress,
    *,
    num_tasks: int,
    updates: int,
    iterations: int,
    begin: Callable[[], None],
    log: Callable[[Metrics], None],
) -> None:
    """Trains until ``iterations`` are complete, of ``updates`` meta-updates each.

    Args:
        num_tasks: tasks of a meta-update.
        begin: called before an iteration changes anything; ``progress`` may be saved there, and continued from.
        log: called after each iteration with its metrics: means over its updates, and of its first tasks, before they
            were learned from, loss and accuracy before and after adaptation.

    Raises:
        FloatingPointError: updates were skipped several times in a row.
    """
    skipped, per_task = 0, 0
    while progress.iteration < iterations:
        begin()
        clock, metrics = Stopwatch(progress.actions.device), list[Metrics]()
        for update in range(updates):
            with clock("sampling"):
                episodes = tasks.draw(tasks.sample(num_tasks, progress.tasks), progress.actions)
            per_task = episodes.support.y.shape[1] + episodes.query.y.shape[1]
            with clock("optimization"):
                measured = adaptation(learner, progress, episodes) if update == 0 else {}
                progress.learner_state, found = learner.update(progress.learner_state, episodes, progress.updates)
            metrics.append(found | measured)
            skipped = skipped + 1 if found.get("train/skipped_updates") else 0
            if skipped == MAX_SKIPPED:
                many = f"{skipped} updates in a row were skipped"
                advice = "start a run with smaller steps (inner_lr, learning_rate)"
                raise FloatingPointError(f"{many}, for the meta-gradient was not finite: {advice}")
        progress.iteration += 1
        num_examples = updates * num_tasks * per_task
        progress.env_steps += num_examples
        total = sum(clock.seconds.values())
        log(
            merged(metrics)
            | {"time/examples_per_second": num_examples / total}
            | {f"time/{name}_seconds": seconds for name, seconds in clock.seconds.items()}
        )


def adaptation(learner: FewShotLearner, progress: Progress, episodes: Episodes) -> Metrics:
    """Loss and accuracy on the query examples, before the inner steps where there are any, and after."""
    found = learner.predictions(progress.learner_state, episodes, [1.0] * learner.adapt_steps)
    stages = {"pre": found[0], "post": found[-1]} if len(found) > 1 else {"post": found[0]}
    metrics: Metrics = {}
    for stage, prediction in stages.items():
        loss = example_loss(prediction, episodes.query.y, episodes.spec)
        metrics[f"meta_train/loss_{stage}"] = loss.mean().item()
        if episodes.spec.discrete:
            metrics[f"meta_train/accuracy_{stage}"] = accuracy(prediction, episodes.query.y).mean().item()
    return metrics


def merged(metrics: list[Metrics]) -> Metrics:
    """The mean of each number over the updates that have it; of updates skipped, their count."""
    found: dict[str, list[float]] = {}
    for one in metrics:
        for tag, value in one.items():
            found.setdefault(tag, []).append(value)
    means = {tag: sum(values) / len(values) for tag, values in found.items()}
    if (tag := "train/skipped_updates") in means:
        means[tag] = sum(found[tag])
    return means
