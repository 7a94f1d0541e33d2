"""What a search varies: intervals and choices by the flat name of an option."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metarl.envs.fields import BadField, require_numbers

Value = float | int | str | bool | None | tuple[int, ...]


@dataclass(frozen=True)
class Float:
    """A real number, uniform in [low, high] or in its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        require_interval(self)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Int:
    """A whole number, uniform from low to high, both included, or in its logarithm."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        require_interval(self)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of several values, without an order."""

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len({label(option) for option in self.options}) < max(2, len(self.options)):
            raise BadField(f"options is {self.options}: use two or more, each once")

    def __contains__(self, value: object) -> bool:
        return value in self.options

    def option(self, name: str) -> Value:
        """The one that is labelled so."""
        return next(option for option in self.options if label(option) == name)


Dimension = Float | Int | Choice
Space = Mapping[str, Dimension]


def require_interval(owner: Float | Int) -> None:
    """Refuses ends that are no interval."""
    require_numbers(owner)
    if not owner.low < owner.high or not math.isfinite(owner.high - owner.low):
        raise BadField(f"high is {owner.high}: use more than low ({owner.low})")
    if owner.log and owner.low <= 0:
        raise BadField(f"low is {owner.low}: use more than 0 on a logarithmic scale")


def label(option: Value) -> str:
    """How an option is written: 64x64 for layers."""
    return "x".join(map(str, option)) if isinstance(option, tuple) else str(option)


def parse(text: str, kinds: Mapping[str, Any]) -> tuple[str, Dimension | None]:
    """``inner_lr=0.01:1:log``, ``epochs=2:10``, ``outer=trpo,ppo``, ``hidden_sizes=64x64,100x100``; ``discount=`` is
    varied no longer.

    Args:
        kinds: by option, a value of its kind; of those that choose a part, a string.

    Raises:
        ValueError: not of this form, or no such option.
    """
    name, equals, said = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    if not equals:
        raise ValueError(f"vary is {text!r}: use name=low:high, name=low:high:log or name=this,that")
    if name not in kinds:
        raise ValueError(f"vary is {text!r}: there is no option {name} to vary, use one of {', '.join(sorted(kinds))}")
    if not said:
        return name, None
    try:
        if "," in said:
            return name, Choice(tuple(read(part, kinds[name]) for part in said.split(",")))
        low, high, *scale = said.split(":")
        if scale not in ([], ["log"]):
            raise ValueError
        whole = isinstance(kinds[name], int)
        return name, Int(int(low), int(high), log=bool(scale)) if whole else Float(float(low), float(high), bool(scale))
    except BadField as error:
        raise ValueError(f"vary is {text!r}: {error}") from error
    except ValueError as error:
        form = "name=low:high, name=low:high:log or name=this,that"
        raise ValueError(f"vary is {text!r}: use {form}, with values of the kind of {kinds[name]!r}") from error


def read(text: str, like: Any) -> Value:
    """A value of the kind of ``like`` from its text."""
    if text == "None":
        return None
    if isinstance(like, bool):
        return {"True": True, "False": False}[text] if text in ("True", "False") else read(text, "")
    if isinstance(like, tuple):
        return tuple(int(part) for part in text.split("x"))
    return int(text) if isinstance(like, int) else float(text) if isinstance(like, float) else text
