"""Columns that several studies share: where the numbers of ``evaluation.json`` stand."""

from metarl.runs.studies import Column

BY_STEP = tuple(
    Column(name, (("mean", k, "value"),)) for k, name in enumerate(("before", "1 step", "2 steps", "3 steps"))
)
"""Mean return on held-out tasks before and after inner steps."""

GREEDY = "*, greedy"

SUCCESS = (
    Column("greedy, at the end", (("success", GREEDY, "all", "end", -1, "value"),), percent=True),
    Column("before adaptation", (("success", GREEDY, "all", "end", 0, "value"),), percent=True),
    Column(
        "sampled, at any step",
        (("success", "*", "all", "any", -1), ("success", "*", "all", "after", "value")),
        percent=True,
    ),
    Column(
        "before adaptation, any", (("success", "*", "all", "any", 0), ("success", "*", "all", "before")), percent=True
    ),
    Column(
        "as Meta-World counts",
        (("success", GREEDY, "all", "first_finished"), ("success", "*", "all", "first_finished")),
        percent=True,
    ),
)
"""Success on held-out tasks of Meta-World, the headline first; an evaluation made before a measure existed lacks it."""

SUCCESS_NOTE = (
    "Ours: held-out goals (ML1) or environments (ML10, ML45), every episode counted, environments weigh equally, final "
    "checkpoint. Greedy, at the end: adapted to sampled episodes, tested with the most likely actions, success at the "
    "last step. Sampled, at any step: noise can earn it. As Meta-World counts: the first three episodes to finish, "
    "which end at their success, so that the count is biased upwards; published figures are of this kind."
)


def trial(name: str, agent: str | None = None, *, digits: int = 1) -> Column:
    """Total return of a trial, of the learner or of another agent in the evaluation."""
    path: tuple[str | int, ...] = ("trial", "value")
    return Column(name, (path if agent is None else ("comparisons", agent, *path),), digits=digits)
