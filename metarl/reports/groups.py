"""Which runs belong together, and what they are called: by task, then by what differs besides the seed."""

from metarl.reports.titles import task_title
from metarl.runs.config import leaves, to_json
from metarl.runs.experiment import CHANGEABLE, Experiment


def panel_names(experiments: list[Experiment]) -> list[str]:
    """The task of each, with what defines it."""
    return [task_title(experiment.task) for experiment in experiments]


def curve_names(experiments: list[Experiment]) -> list[str]:
    """A name for each; two on a task are the same where they differ in nothing but their seed, length or machine.

    Where the learner does not tell two of them apart, their presets do; where those do not, the fields that differ.
    """
    names = [experiment.learner.describe().name for experiment in experiments]
    tasks = [experiment.task for experiment in experiments]
    every = [leaves(to_json(experiment)) for experiment in experiments]
    settings = [{field: own[field] for field in own if field not in ("seed", *CHANGEABLE)} for own in every]
    presets = [{"preset": own.pop("preset")} for own in settings]
    for details in (presets, settings):
        rows, names = list(zip(tasks, names, details, strict=True)), []
        for task, name, own in rows:
            alike = [other for *key, other in rows if key == [task, name]]
            differing = [field for field in own if any(other.get(field) != own[field] for other in alike)]
            names.append(", ".join([name, *(f"{field} {own[field]}" for field in differing)]))
    return names
