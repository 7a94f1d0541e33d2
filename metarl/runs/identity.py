"""Which experiment a checkpoint is of: the fields that may not change while a run goes on, by name."""

import json
from typing import Any

from metarl.runs.checkpoint import CheckpointError
from metarl.runs.config import leaves, to_json
from metarl.runs.experiment import CHANGEABLE, Experiment


def identity(experiment: Experiment) -> str:
    """JSON of the fields that tell experiments apart. Values and not their digest: so that the one that differs can be
    named, and fields that a later version adds do not make its runs foreign."""
    return json.dumps({name: value for name, value in leaves(to_json(experiment)).items() if name not in CHANGEABLE})


def require_same_experiment(experiment: Experiment, content: dict[str, Any]) -> None:
    """Refuses a checkpoint of another experiment; those of older versions do not say which they are of.

    Raises:
        CheckpointError: a field differs.
    """
    recorded = content.get("experiment")
    if recorded is None:
        return
    now = json.loads(identity(experiment))
    try:
        before = json.loads(recorded)
        common = [name for name in before if name in now]
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("the checkpoint does not say which experiment it is of") from error
    for name in common:
        if before[name] != now[name]:
            raise CheckpointError(
                f"the checkpoint is of another experiment: its {name} is {before[name]!r}, the run's {now[name]!r}; "
                "put the run's own checkpoint there, or start a new run"
            )
