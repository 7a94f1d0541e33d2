"""What a task distribution is called in tables and pictures: by what defines it, never by what a run was begun from."""

from metarl.envs.registry import TaskDistribution, presets_of
from metarl.runs.config import leaves, to_json


def task_title(task: TaskDistribution) -> str:
    """Its name with the preset that defines exactly it, else with the fields that differ from the nearest one.

    A benchmark of one environment is also called by that: ``ml1 (v2, push-v3)``.
    """
    definitions = {"": type(task)(), **task.presets}
    own = leaves(to_json(task))
    environment = own.pop("env", None)
    exact, details = presets_of(task)[:1], []
    if not exact:
        differing = {
            name: [f"{field} {value}" for field, value in own.items() if leaves(to_json(other)).get(field) != value]
            for name, other in definitions.items()
        }
        nearest = min(differing, key=lambda name: len(differing[name]))
        if not differing[nearest] and environment is not None:  # but for the environment, it is a preset
            nearest = next((name for name in differing if name and not differing[name]), nearest)
        exact, details = [nearest] if nearest else [], differing[nearest]
    words = [*exact, *([environment] if environment is not None else []), *details]
    return f"{task.name} ({', '.join(words)})" if words else task.name
