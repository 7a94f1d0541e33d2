"""An experiment with some of its flat options changed by name, and the command line that makes the same one."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarl.algorithms import learner_name
from metarl.cli.parse import choice_name, choices_of, choose, kebab
from metarl.runs.experiment import CHANGEABLE, Experiment
from metarl.search.dimensions import Space, Value

FIXED = {"preset", "seed", "num_threads", *CHANGEABLE, "eval_tasks"}  # nothing to vary


def picked_parts(experiment: Experiment) -> dict[str, Value]:
    """The parts of the learner that are one of several, by name: ``outer``: trpo."""
    learner = experiment.learner
    return {name: choice_name(type(getattr(learner, name))) for name in choices_of(type(learner))}


def options(value: Any) -> dict[str, Any]:
    """The value of each flat option of a dataclass and of the dataclasses in it."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        found |= options(inner) if dataclasses.is_dataclass(inner) else {field.name: inner}
    return found


def variable(experiment: Experiment) -> dict[str, Any]:
    """What a search could vary: options by name, and the names of the parts."""
    parts = picked_parts(experiment)
    rest = {name: x for name, x in options(experiment).items() if name not in FIXED and name not in parts}
    return rest | parts


def all_options(experiment: Experiment) -> dict[str, Any]:
    """:func:`variable` with the options of every part that the learner may have."""
    found = variable(experiment)
    for name, choices in choices_of(type(experiment.learner)).items():
        for choice in choices:
            chosen = choose(experiment.learner, name, choice)
            found |= {key: x for key, x in options(chosen).items() if key not in found and key != name}
    return found


def changed(value: Any, changes: Mapping[str, Any]) -> Any:
    """A dataclass with the fields of these names changed, wherever they are in it."""
    new: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner) and not isinstance(inner, type):
            new[field.name] = changed(inner, changes)
        elif field.name in changes:
            new[field.name] = changes[field.name]
    return dataclasses.replace(value, **new)


@dataclass(frozen=True)
class Variation:
    """Experiments around one, for :class:`metarl.search.worker.Search`."""

    start: Experiment

    def chosen(self, values: Mapping[str, Any]) -> Experiment:
        """``start`` with the parts that the values name, in their defaults where they are others than its own."""
        learner = self.start.learner
        for name in picked_parts(self.start):
            if name in values:
                learner = choose(learner, name, str(values[name]))
        return dataclasses.replace(self.start, learner=learner)

    def fits(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether an option exists beside the values chosen before it."""
        return name in variable(self.chosen(values))

    def build(self, values: Mapping[str, Any]) -> Experiment:
        """The experiment of some values.

        Raises:
            BadField: they cannot work together.
        """
        experiment: Experiment = changed(self.chosen(values), values)
        return experiment

    def initial(self, space: Space) -> dict[str, Value]:
        """The values that ``start`` has."""
        known = variable(self.start)
        return {name: known[name] for name in space if name in known}


def ordered(space: Space, start: Experiment) -> Space:
    """The space with the choices of parts first: what else there is to vary depends on them."""
    parts = picked_parts(start)
    return dict(sorted(space.items(), key=lambda item: item[0] not in parts))


def train_command(experiment: Experiment, start: Experiment, extra: Sequence[str] = ()) -> str:
    """``metarl train ...`` of an experiment: what differs from the preset that it starts from, number of threads
    included, which decides bits.

    Args:
        start: the preset, whose name the experiment bears.
        extra: more options.
    """
    words = ["metarl", "train", experiment.task.name, "--learner", learner_name(type(experiment.learner))]
    if experiment.preset and experiment.preset != "default":
        words += ["--preset", experiment.preset]
    base = start
    for name, part in picked_parts(experiment).items():
        if part != picked_parts(start)[name]:
            words += [f"--{kebab(name)}", str(part)]
            base = dataclasses.replace(base, learner=choose(base.learner, name, str(part)))
    before, now = options(base), options(experiment)
    for name, value in now.items():
        if name != "preset" and value != before.get(name):
            words += option_words(name, value)
    return shlex.join([*words, *extra])


def option_words(name: str, value: Any) -> list[str]:
    flag = kebab(name)
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *map(str, value)] if isinstance(value, tuple) else [f"--{flag}", str(value)]
