"""Options of dataclasses: flat, in any order, and refused in one sentence where a value cannot work."""

import contextlib
import dataclasses
import io
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from metarl.envs.fields import BadField

T = TypeVar("T")


def parse(form: Any, arguments: Sequence[str] | None, **options: Any) -> Any:
    """``tyro.cli``, but what is wrong is a ``ValueError``'s one sentence in place of a drawn box.

    Raises:
        ValueError: arguments that do not fit the form; a field's own :class:`BadField` where it refuses a value.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(form, args=arguments, **options)
    except SystemExit as exit_request:
        error: BaseException | None = exit_request
        while error is not None:
            if isinstance(error, BadField):
                raise error from None
            error = error.__cause__ or error.__context__
        if not exit_request.code:
            raise  # help was asked for
        raise ValueError(sentence(complaint.getvalue())) from None


def sentence(box: str) -> str:
    """What a box that tyro draws says up to its first rule."""
    said: list[str] = []
    for line in box.splitlines()[1:]:  # the first is a title
        text = line.strip("│| ")
        if text.strip("─╰╯-+"):
            said.append(text)
        elif said:
            break
    return " ".join(said).removesuffix(".").removeprefix("Error parsing ") or "these arguments do not fit"


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value that ``--flag value`` or ``--flag=value`` gives, the last one where there are several.

    Raises:
        ValueError: the last argument is the option.
    """
    if arguments and arguments[-1].replace("_", "-") == flag:
        raise ValueError(f"{flag} has no value")
    values = [None, *values_of(flag, arguments)]
    return values[-1]


def values_of(flag: str, arguments: Sequence[str]) -> list[str]:
    """Every value that an option is given."""
    found = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == flag and (equals or position + 1 < len(arguments)):
            found.append(value if equals else arguments[position + 1])
    return found


def without(flag: str, arguments: Sequence[str]) -> list[str]:
    """The arguments without an option and its values."""
    left, skip = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif name.replace("_", "-") == flag:
            skip = not equals
        else:
            left.append(argument)
    return left


def options_of(cls: type, *, skip: Sequence[str] = ()) -> dict[str, str]:
    """The flat options of a dataclass and of the dataclasses in it: flags take no value, others one or several."""
    options: dict[str, str] = {}
    for name, hint in fields_of(cls, skip=skip).items():
        inner = [member for member in members(hint) if isinstance(member, type) and dataclasses.is_dataclass(member)]
        if len(inner) == len(members(hint)) == 1:
            options |= options_of(inner[0])
        elif not inner:
            several = any(typing.get_origin(member) is tuple for member in members(hint))
            kind = "flag" if hint is bool else "values" if several else "value"
            options |= {f"--{kebab(name)}": kind} | ({f"--no-{kebab(name)}": kind} if hint is bool else {})
    return options


def choices_of(cls: type) -> dict[str, dict[str, type]]:
    """The fields that hold one of several dataclasses, each with the names of those: ``outer``: trpo, ppo ..."""
    found: dict[str, dict[str, type]] = {}
    for name, hint in fields_of(cls).items():
        if len(members(hint)) > 1 and any(dataclasses.is_dataclass(member) for member in members(hint)):
            found[name] = {choice_name(member): member for member in members(hint)}
    return found


def choose(value: T, name: str, choice: str) -> T:
    """``value`` with one of the dataclasses that its field ``name`` may hold, in that one's defaults.

    Raises:
        ValueError: there is no such choice, with those there are.
    """
    known = choices_of(type(value))[name]
    if choice not in known:
        raise ValueError(f"{name} is {choice!r}: use one of {', '.join(known)}")
    if choice_name(type(getattr(value, name))) == choice:
        return value
    return dataclasses.replace(value, **{name: None if choice == "none" else known[choice]()})  # type: ignore[type-var]


def fields_of(cls: type, *, skip: Sequence[str] = ()) -> dict[str, Any]:
    """The annotations of a dataclass' fields, those that can be set."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init and field.name not in skip}


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def choice_name(cls: type) -> str:
    return "none" if cls is type(None) else kebab(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__))


def kebab(name: str) -> str:
    return name.replace("_", "-").lower()
