"""What an evaluation comes to, in one sentence."""

from metarl.evaluate import MetaTest
from metarl.reports.plan import Plan

NUMBERS = ("no", "one", "two", "three", "four", "five")


def headline(plan: Plan, results: dict[str, MetaTest], *, has_success: bool) -> str:
    """Before and after adaptation on held-out tasks: mean return, or greedy success at the end where that counts."""
    own = next(iter(results))
    if has_success:
        shown = results.get(f"{own}, greedy", results[own])
        rates = shown.known(shown.solved_at_end).nanmean((0, 2)).tolist()
        values, what = [f"{rate:.0%}" for rate in rates], "of the episodes solved at their end, greedily,"
    else:
        values = [f"{value:.1f}" for value in results[own].returns.double().nanmean((0, 2)).tolist()]
        what = "mean return"
    if plan.scales:
        last = len(values) - 1
        counts = [NUMBERS[k] if k < len(NUMBERS) else str(k) for k in range(last + 1)]
        after = f"{values[1]} after one inner step"
        further = f", {values[last]} after {counts[last]}" if last > 1 else ""
        return f"held-out: {what} {values[0]} before, {after}{further}"
    if plan.trial == 1:
        return f"held-out: {what} {values[0]}"
    return f"held-out: {what} {values[0]} in the first episode of a trial, {values[-1]} in the last"
