"""Success on held-out tasks, by kind of task: every episode counted, and Meta-World's count beside it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.table import Table
from rich.text import Text

from metarl.evaluate import MetaTest
from metarl.reports.published import PublishedSuccess
from metarl.reports.statistics import estimate, stratified_estimate

FIRST = 3  # episodes that Meta-World counts
GREEDY = ", greedy"  # ends the names of rows of greedy actions


def first_finished(
    solved_after: Int[np.ndarray, "goal episode"], *, horizon: int, parallel: int, count: int = FIRST
) -> float:
    """Success rate as ``metaworld.evaluation.metalearning_evaluation`` counts it, which is biased upwards.

    Its worlds play the goals of one environment side by side, an episode ends at its first success, and only the
    first ``count`` episodes to finish count: those that succeed finish first, so that a policy that solves one goal
    in four can be said to solve all.

    Args:
        solved_after: steps until the first success of an episode, 0 where it failed, -1 where it diverged, which
            does not count.
        horizon: steps of an episode that fails.
        parallel: goals played side by side; the mean goes over groups of so many.
    """
    finished = np.cumsum(np.where(solved_after > 0, solved_after, horizon), axis=1)
    rates = []
    for begin in range(0, len(solved_after), parallel):
        solved = (solved_after[begin : begin + parallel] > 0).ravel()
        order = np.argsort(finished[begin : begin + parallel].ravel(), kind="stable")
        order = order[solved_after[begin : begin + parallel].ravel()[order] >= 0]
        if len(order):
            rates.append(solved[order[:count]].mean())
    return float(np.mean(rates))


def first_finished_of_copies(
    solved_after: Int[np.ndarray, "goal trial"], *, horizon: int, parallel: int, count: int = FIRST
) -> float:
    """The same of greedy episodes that each begin with a copy of the memory of one trial, as published for RL²: where
    resets have no noise, copies play the trial's one greedy episode again. The mean over trials.
    """
    again = [np.repeat(column[:, None], count, axis=1) for column in solved_after.T]
    return float(np.mean([first_finished(copies, horizon=horizon, parallel=parallel, count=count) for copies in again]))


def success_record(
    results: dict[str, MetaTest],
    labels: list[str],
    *,
    horizon: int,
    published: PublishedSuccess | None,
    trials: bool = False,
) -> dict[str, Any]:
    """By policy and kind of task, each measure as the policy adapts: a value for each inner step or episode.

    ``end``: success at the last step, with its interval over the tasks of the kind; ``last_50``: share of the last 50
    steps with success; ``any``: success at any step; ``steps_to_success``: until the first one, mean of the episodes
    that have one, None without; ``return``. ``iqm_end`` and Meta-World's count ``first_finished`` are of the last.
    Under ``all`` kinds weigh equally.

    Args:
        trials: an agent remembers: what it is tested on is an episode of each of several trials.
    """
    counts = {row: first_finished_of_copies if trials and row.endswith(GREEDY) else first_finished for row in results}
    return {row: _record(result, labels, horizon, published, counts[row]) for row, result in results.items()}


def _record(
    result: MetaTest, labels: list[str], horizon: int, published: PublishedSuccess | None, count: Callable[..., float]
) -> dict[str, Any]:
    after = result.solved_after.cpu().numpy()
    measures = {  # [task, step], NaN of a task that no episode is left of
        name: result.known(measure).nanmean(2).cpu().numpy()
        for name, measure in {
            "end": result.solved_at_end,
            "last_50": result.solved_share,
            "any": result.successes,
            "return": result.returns,
        }.items()
    }
    kinds = list(dict.fromkeys(labels))
    record: dict[str, Any] = {}
    for kind in kinds:
        goals = np.array([label == kind for label in labels])
        end = measures["end"][goals]
        record[kind] = {
            "goals": int(goals.sum()),
            "end": [estimate(end[:, step], iqm=False)._asdict() for step in range(end.shape[1])],
            "iqm_end": estimate(end[:, -1], iqm=True)._asdict(),
            **{name: np.nanmean(measures[name][goals], axis=0).tolist() for name in ("last_50", "any", "return")},
            "steps_to_success": steps_to_success(after[goals]),
        }
        if published is not None:
            parallel = published.parallel(len(kinds))
            record[kind]["first_finished"] = count(after[goals, -1], horizon=horizon, parallel=parallel)
    end = measures["end"]
    everything = {
        "goals": len(labels),
        "end": [stratified_estimate(end[:, step], labels)._asdict() for step in range(end.shape[1])],
        "iqm_end": estimate(end[:, -1], iqm=True)._asdict(),
        **{
            name: np.mean([kind[name] for kind in record.values()], axis=0).tolist()
            for name in ("last_50", "any", "return")
        },
        "steps_to_success": steps_to_success(after),
    }
    if published is not None:
        everything["first_finished"] = float(np.mean([kind["first_finished"] for kind in record.values()]))
    return record | {"all": everything}


def steps_to_success(solved_after: Int[np.ndarray, "task step episode"]) -> list[float | None]:
    """Mean steps until the first success at each step of adaptation, of the episodes that have one."""
    by_step = [column[column > 0] for column in solved_after.transpose(1, 0, 2)]
    return [float(found.mean()) if found.size else None for found in by_step]


CAPTION = (
    "at the end: success at the last step of an episode, the headline, with its 95 % interval (resampled tasks); "
    "before: the same before any adaptation; last 50: share of an episode's last 50 steps with success; any: success "
    "at any step, which noise can earn; steps: until the first success, in episodes that have one. Greedy policies "
    "adapt to sampled episodes and are tested with their most likely actions."
)
COLUMNS = ("at the end", "95 %", "before", "last 50", "any", "steps", "return before", "return")


def success_tables(record: dict[str, Any], *, own: str, when: str, note: str = "") -> list[Table]:
    """A line a policy over all tasks; then, where there are several kinds of task, a table of them for each of ours.

    Args:
        own: the learner's name, which the names of its rows begin with.
        when: says when "at the end" is, in terms of adaptation.
        note: about what was published, for the caption.
    """
    tables = [
        _table(
            f"success after adaptation ({when})",
            "policy",
            {row: kinds["all"] for row, kinds in record.items()},
            bold=f"{own}, greedy",
        )
    ]
    tables[0].caption = Text(" ".join(filter(None, [CAPTION, note])))
    for policy, kinds in record.items():
        if policy.startswith(own) and len(kinds) > 2:
            tables.append(_table(f"success of {policy} by environment ({when})", "environment", kinds))
    return tables


def _table(title: str, first: str, rows: dict[str, Any], *, bold: str = "all") -> Table:
    found = Table(title=Text(title))
    counted = any("first_finished" in row for row in rows.values())
    for column in (first, "tasks", *COLUMNS, *(["first 3 to finish"] if counted else [])):
        found.add_column(column, justify="left" if column == first else "right")
    for name, row in rows.items():
        end, first_step = row["end"][-1], row["end"][0]
        after = row["steps_to_success"][-1]
        cells = [f"{end['value']:.1%}", f"{end['low']:.0%} .. {end['high']:.0%}", f"{first_step['value']:.0%}"]
        cells += [f"{row['last_50'][-1]:.0%}", f"{row['any'][-1]:.0%}", "-" if after is None else f"{after:.0f}"]
        cells += [f"{row['return'][0]:.0f}", f"{row['return'][-1]:.0f}"]
        cells += [f"{row['first_finished']:.0%}"] if counted else []
        if name == "all":
            found.add_section()
        found.add_row(Text(name), str(row["goals"]), *cells, style="bold" if name == bold else None)
    return found
