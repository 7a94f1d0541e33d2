"""Nested frozen dataclasses <-> JSON, by the names of fields and classes alone (never an import path)."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

CLASS = "class"  # the key that tells the members of a union apart


def to_json(value: Any) -> Any:
    """A dataclass as a dict of its fields and its class' name; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {CLASS: type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], value: Mapping[str, Any]) -> T:
    """The inverse of :func:`to_json`; fields that the JSON lacks take their defaults.

    Raises:
        ValueError: a field that the class does not have, or a class that the annotation does not allow.
    """
    if value.get(CLASS, cls.__name__) != cls.__name__:
        raise ValueError(f"expected a {cls.__name__}, the file holds a {value[CLASS]}")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = set(value) - names - {CLASS}
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}: it has {', '.join(sorted(names))}")
    return cls(**{name: _decode(hints[name], item) for name, item in value.items() if name != CLASS})


def _decode(hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        for member in members:
            if isinstance(member, type) and member.__name__ == value.get(CLASS):
                return from_json(member, value)
        raise ValueError(f"{value.get(CLASS)} is none of {', '.join(m.__name__ for m in members)}")
    return tuple(value) if isinstance(value, list) else value
