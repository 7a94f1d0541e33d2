"""Success rates of a benchmark by kind of task: every episode counted, and Meta-World's count beside it."""

from typing import Any

import numpy as np
from jaxtyping import Int
from rich.table import Table

from metarl.evaluate import MetaTest
from metarl.reports.published import PublishedSuccess
from metarl.reports.statistics import estimate, stratified_estimate

FIRST = 3  # episodes that Meta-World counts


def first_finished(
    solved_after: Int[np.ndarray, "goal episode"], *, horizon: int, parallel: int, count: int = FIRST
) -> float:
    """Success rate as ``metaworld.evaluation.metalearning_evaluation`` counts it, which is biased upwards.

    Its worlds play the goals of one environment side by side, an episode ends at its first success, and only the
    first ``count`` episodes to finish count: those that succeed finish first, so that a policy that solves one goal
    in four can be said to solve all.

    Args:
        solved_after: steps until the first success of an episode, 0 where it failed.
        horizon: steps of an episode that fails.
        parallel: goals played side by side; the mean goes over groups of so many.
    """
    finished = np.cumsum(np.where(solved_after > 0, solved_after, horizon), axis=1)
    rates = []
    for begin in range(0, len(solved_after), parallel):
        solved = (solved_after[begin : begin + parallel] > 0).ravel()
        order = np.argsort(finished[begin : begin + parallel].ravel(), kind="stable")
        rates.append(solved[order[:count]].mean())
    return float(np.mean(rates))


def success_record(
    results: dict[str, MetaTest], labels: list[str], *, horizon: int, published: PublishedSuccess | None
) -> dict[str, Any]:
    """By policy and kind of task: success before and after adaptation, its interquartile mean, and both counts.

    The interval of a kind is over its goals; that of ``all`` is over all tasks. Means over kinds weigh kinds equally.
    """
    return {row: _record(result, labels, horizon, published) for row, result in results.items()}


def _record(result: MetaTest, labels: list[str], horizon: int, published: PublishedSuccess | None) -> dict[str, Any]:
    solved_after = result.solved_after.cpu().numpy()
    rates = (solved_after > 0).mean(axis=2)  # [task, step]
    kinds = list(dict.fromkeys(labels))
    record = {}
    for kind in kinds:
        goals = np.array([label == kind for label in labels])
        record[kind] = {
            "goals": int(goals.sum()),
            "before": float(rates[goals, 0].mean()),
            "after": estimate(rates[goals, -1], iqm=False)._asdict(),
            "iqm_after": estimate(rates[goals, -1], iqm=True)._asdict(),
            "return_before": float(result.returns[goals, 0].double().mean()),
            "return_after": float(result.returns[goals, -1].double().mean()),
        }
        if published is not None:
            parallel = published.parallel(len(kinds))
            record[kind]["first_finished"] = first_finished(solved_after[goals, -1], horizon=horizon, parallel=parallel)
    everything = {
        "goals": len(labels),
        "before": float(np.mean([kind["before"] for kind in record.values()])),
        "after": stratified_estimate(rates[:, -1], labels)._asdict(),
        "iqm_after": estimate(rates[:, -1], iqm=True)._asdict(),
        "return_before": float(np.mean([kind["return_before"] for kind in record.values()])),
        "return_after": float(np.mean([kind["return_after"] for kind in record.values()])),
    }
    if published is not None:
        everything["first_finished"] = float(np.mean([kind["first_finished"] for kind in record.values()]))
    return record | {"all": everything}


def success_tables(record: dict[str, Any], published: PublishedSuccess | None, last: str) -> list[Table]:
    """A table a policy; ``last`` says when "after" is."""
    tables: list[Table] = []
    for policy, kinds in record.items():
        found = Table(title=f"success of {policy}, on held-out tasks")
        for column in ("environment", "goals", "before", f"after ({last})", "95 %", "IQM", "return before", "after"):
            found.add_column(column, justify="left" if column == "environment" else "right")
        if published is not None:
            found.add_column("first 3 to finish", justify="right")
        for kind, row in kinds.items():
            after = row["after"]
            cells = [f"{row['before']:.0%}", f"{after['value']:.1%}", f"{after['low']:.0%} .. {after['high']:.0%}"]
            cells += [f"{row['iqm_after']['value']:.0%}", f"{row['return_before']:.0f}", f"{row['return_after']:.0f}"]
            cells += [f"{row['first_finished']:.0%}"] if published is not None else []
            if kind == "all":
                if len(kinds) == 2:  # it would say the same again
                    continue
                found.add_section()
            found.add_row(kind, str(row["goals"]), *cells, style="bold" if kind == "all" else None)
        if published is not None and not tables:
            found.caption = published.caption(policy)
        tables.append(found)
    return tables
