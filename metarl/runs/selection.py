"""Model selection: the best iteration so far by validation, and when to stop looking for a better one.

Validation tasks are drawn apart from those of training and from those of the test, so that the choice of a checkpoint
does not bias what it is tested on (:func:`metarl.evaluate.validation_tasks`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.runs.checkpoint import CheckpointError
from metarl.runs.experiment import Experiment
from metarl.runs.recorded import LARGEST, Selection, recorded_selection

KEY = "selection"  # of a checkpoint


def selection_of(content: Mapping[str, Any]) -> Selection:
    """What a checkpoint says of validation; that there was none, where it says nothing.

    Raises:
        CheckpointError: it holds what no training leaves.
    """
    found = content.get(KEY)
    if found is None:
        return Selection()
    try:
        score, iteration, worse = found["score"], found["iteration"], found["worse"]
    except (TypeError, KeyError) as error:
        raise CheckpointError("the checkpoint's selection is damaged") from error
    counts = all(type(count) is int and 0 <= count < LARGEST for count in (iteration, worse))
    if not counts or type(score) is not float or math.isnan(score):
        raise CheckpointError(f"the checkpoint's selection is {score!r} at {iteration!r}, {worse!r} since")
    return Selection(score, iteration, worse)


def stopped_early(experiment: Experiment, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether a run of these rows ended for want of a better validation, and is complete therefore."""
    return experiment.patience > 0 and recorded_selection(rows).exhausted(experiment.patience)
