"""Nested frozen dataclasses <-> JSON, by the names of fields and classes alone (never an import path)."""

import dataclasses
import reprlib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from metarl.extensions import is_open, members

T = TypeVar("T")

CLASS = "class"  # the key that tells the members of a union apart


def to_json(value: Any) -> Any:
    """A dataclass as a dict of the fields that can be set and its class' name; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {CLASS: type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """The numbers and names in nested JSON by their path, such as ``learner.inner_lr``."""
    if not isinstance(value, dict):
        return {prefix: value}
    nested = [leaves(item, f"{prefix}.{key}" if prefix else key) for key, item in value.items()]
    return {path: leaf for part in nested for path, leaf in part.items()}


def from_json(cls: type[T], value: Mapping[str, Any]) -> T:
    """The inverse of :func:`to_json`; fields that the JSON lacks take their defaults.

    Raises:
        ValueError: a field that the class does not have, or a class that the annotation does not allow.
    """
    if value.get(CLASS, cls.__name__) != cls.__name__:
        raise ValueError(f"expected a {cls.__name__}, the file holds a {_name(value[CLASS])}")
    return cls(**decode_fields(cls, {name: item for name, item in value.items() if name != CLASS}))


def decode_fields(cls: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``cls`` that ``value`` holds, each checked against its annotation."""
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls) if f.init}
    unknown = set(value) - names
    if unknown:
        said = ", ".join(map(_name, sorted(unknown)))
        raise ValueError(f"{cls.__name__} has no field {said}: it has {', '.join(sorted(names))}")
    return {name: _decode(name, hints[name], item) for name, item in value.items()}


def _name(value: Any) -> str:
    """In one line, whatever it is."""
    return value if isinstance(value, str) and value.isidentifier() else reprlib.repr(value)


def _decode(name: str, hint: Any, value: Any) -> Any:
    allowed = members(hint)
    tuples = [typing.get_args(member) for member in allowed if typing.get_origin(member) is tuple]
    if isinstance(value, Mapping):
        for member in allowed:
            if isinstance(member, type) and member.__name__ == value.get(CLASS):
                return from_json(member, value)
        known = ", ".join(getattr(member, "__name__", str(member)) for member in allowed)
        found = f"{name} is of the class {_name(value.get(CLASS))}"
        if any(map(is_open, (hint, *typing.get_args(hint)))):
            raise ValueError(
                f"{found}, defined nowhere here: use {known}, or name the file that defines it with --code"
            )
        raise ValueError(f"{found}: use {known}")
    for items in tuples if isinstance(value, list) else ():
        if Ellipsis in items or len(items) == len(value):
            return tuple(_decode(name, items[0], item) for item in value)
    if typing.get_origin(hint) is typing.Literal and value in typing.get_args(hint):
        return value
    if type(value) in allowed or (float in allowed and type(value) is int):
        return value
    raise ValueError(f"{name} is {reprlib.repr(value)}: it needs a {hint}")
