"""A search's record: an Optuna study in a journal file, which any process that sees the folder may read and extend.

Every proposal is drawn from a stream of its own trial's number, with all earlier cohorts told and none of its own: so
it is a function of the search's settings, whoever draws it.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metarl.envs.fields import BadField
from metarl.search.dimensions import Choice, Dimension, Float, Space, Value, label
from metarl.search.settings import Settings
from metarl.seeds import stream_seed

NAME = "search"
FILE = "journal.log"
MOST_REFUSED = 1000  # proposals in a row that no experiment can be made of


def optuna() -> Any:
    """The package, quiet.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError("a search needs optuna: pip install 'metarl-toolkit[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's notices of what it calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Journal:
    """The trials of one search."""

    def __init__(self, folder: Path) -> None:
        optuna_ = optuna()
        storages = optuna_.storages
        with quiet():
            backend = storages.journal.JournalFileBackend(str(folder / FILE))
            self.study = optuna_.create_study(
                storage=storages.JournalStorage(backend), study_name=NAME, direction="maximize", load_if_exists=True
            )

    def require_same(self, recorded: dict[str, Any]) -> None:
        """Writes what the search is, or refuses to join it as another one.

        Raises:
            ValueError: a setting differs.
        """
        before = self.study.user_attrs.get("settings")
        now = json.loads(json.dumps(recorded))
        if before is None:
            self.study.set_user_attr("settings", now)
            return
        for name in dict.fromkeys([*before, *now]):
            if before.get(name) != now.get(name):
                raise ValueError(
                    f"{name} is {now.get(name)!r}, the search to join has {before.get(name)!r}: join it with the "
                    "command that began it, or give the new one another --name"
                )

    def trials(self) -> list[Any]:
        """Every trial by number, as Optuna's frozen trials."""
        return list(self.study.get_trials(deepcopy=False))

    def propose(
        self,
        cohort: int,
        size: int,
        space: Space,
        settings: Settings,
        seed: int,
        start: dict[str, Value],
        build: Callable[[dict[str, Value]], Any],
        fits: Callable[[str, dict[str, Value]], bool],
    ) -> None:
        """New trials of a cohort, until it has ``size``.

        Args:
            start: the values that the search begins with, tried first as far as they lie in the space.
            build: makes an experiment, or refuses; what it refuses is no trial.
            fits: whether a name means anything beside the values chosen before it.
        """
        optuna_, refused = optuna(), 0
        for orphan in self.trials():  # whose proposer died over it
            if number_of_cohort(orphan) is None and not orphan.state.is_finished():
                self.study.tell(orphan.number, state=optuna_.trial.TrialState.FAIL)
        while size > sum(number_of_cohort(trial) == cohort for trial in self.trials()) and refused < MOST_REFUSED:
            number = len(self.trials())
            chance = stream_seed(seed, "proposal", number) % 2**32
            with quiet():
                sampler = (
                    optuna_.samplers.TPESampler(seed=chance, n_startup_trials=min(10, settings.cohort))
                    if settings.sampler == "tpe"
                    else optuna_.samplers.RandomSampler(seed=chance)
                )
                self.study.sampler = sampler
                if number == 0:
                    inside = {name: start[name] for name, dim in space.items() if name in start and start[name] in dim}
                    self.study.enqueue_trial({name: as_parameter(space[name], x) for name, x in inside.items()})
                trial = self.study.ask()
                values: dict[str, Value] = {}
                for name, dimension in space.items():
                    if fits(name, values):
                        values[name] = suggest(trial, name, dimension)
            try:
                build(values)
                trial.set_user_attr("cohort", cohort)
            except BadField as error:
                refused += 1
                trial.set_user_attr("refused", str(error))
                self.study.tell(number, state=optuna_.trial.TrialState.FAIL)

    def report(self, number: int, iteration: int, value: float) -> None:
        """Notes a trial's objective at a rung, once."""
        frozen = self.trials()[number]
        if iteration not in frozen.intermediate_values and not frozen.state.is_finished():
            self.study._storage.set_trial_intermediate_value(frozen._trial_id, iteration, value)

    def mark(self, number: int, name: str, value: str) -> None:
        frozen = self.trials()[number]
        if not frozen.state.is_finished():
            self.study._storage.set_trial_user_attr(frozen._trial_id, name, value)

    def end(self, number: int, *, complete: bool) -> None:
        """Tells the sampler how a trial ended: at the last rung, or before."""
        frozen, states = self.trials()[number], optuna().trial.TrialState
        if frozen.state.is_finished():
            return
        reached = frozen.intermediate_values
        if complete:
            self.study.tell(number, reached[max(reached)])
        else:
            self.study.tell(number, state=states.PRUNED)


def number_of_cohort(trial: Any) -> int | None:
    """Which cohort a trial is of; None of one that was refused."""
    cohort: int | None = trial.user_attrs.get("cohort")
    return cohort


def values_of(trial: Any, space: Space) -> dict[str, Value]:
    """The settings of a trial."""
    return {name: as_value(space[name], x) for name, x in trial.params.items() if name in space}


def suggest(trial: Any, name: str, dimension: Dimension) -> Value:
    if isinstance(dimension, Choice):
        return dimension.option(trial.suggest_categorical(name, [label(option) for option in dimension.options]))
    propose = trial.suggest_float if isinstance(dimension, Float) else trial.suggest_int
    value: float | int = propose(name, dimension.low, dimension.high, log=dimension.log)
    return float(f"{value:.4g}") if isinstance(dimension, Float) and inside(dimension, value) else value


def inside(dimension: Float, value: float) -> bool:
    """Whether a value still lies in its interval in four digits, which are easier to read and to type."""
    return dimension.low <= float(f"{value:.4g}") <= dimension.high


def as_parameter(dimension: Dimension, value: Value) -> Any:
    return label(value) if isinstance(dimension, Choice) else value


def as_value(dimension: Dimension, parameter: Any) -> Value:
    if isinstance(dimension, Choice):
        return dimension.option(parameter)
    rounded = isinstance(dimension, Float) and inside(dimension, parameter)
    value: Value = float(f"{parameter:.4g}") if rounded else parameter
    return value


def best_first(trials: list[Any]) -> list[Any]:
    """Those that got farthest first, and of these the ones with the highest objective."""
    reached = [trial for trial in trials if trial.intermediate_values]

    def rank(trial: Any) -> tuple[int, float, int]:
        iteration = max(trial.intermediate_values)
        value = trial.intermediate_values[iteration]
        return (-iteration if value > -math.inf else 0, -value, trial.number)

    return sorted(reached, key=rank)
