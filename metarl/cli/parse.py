"""Options of dataclasses: flat, in any order, and refused in one sentence where a value cannot work."""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from metarl.extensions import is_open, members

T = TypeVar("T")

FLAT = (tyro.conf.AvoidSubcommands, tyro.conf.OmitArgPrefixes)


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
        from metarl.envs.fields import BadField  # imports torch, which not every verb needs

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


def options_of(cls: type, *, skip: Sequence[str] = (), nested: bool = True) -> dict[str, str]:
    """The flat options of a dataclass and, ``nested``, of those in it: flags take no value, others one or several."""
    options: dict[str, str] = {}
    for name, hint in fields_of(cls, skip=skip).items():
        inner = [member for member in members(hint) if isinstance(member, type) and dataclasses.is_dataclass(member)]
        if len(inner) == len(members(hint)) == 1:
            options |= options_of(inner[0]) if nested else {}
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


def choose(value: T, name: str, choice: str, arguments: Sequence[str] = ()) -> T:
    """``value`` with one of the dataclasses that its field ``name`` may hold, in that one's defaults.

    Args:
        arguments: a command line whose options of that dataclass count at once, so that it is never a wrong one.

    Raises:
        ValueError: there is no such choice, with those there are.
    """
    known = choices_of(type(value))[name]
    if choice not in known:
        more = ", or name the file that defines it with --code" if is_open_field(type(value), name) else ""
        raise ValueError(f"{name} is {choice!r}: use one of {', '.join(known)}{more}")
    if choice_name(type(getattr(value, name))) == choice:
        return value
    part = None
    if choice != "none":
        own = [argument for argument in arguments if argument not in ("-h", "--help")]
        for inner in choices_of(known[choice]):  # which are picked next
            own = without(f"--{inner}", own)
        part, _ = parse(known[choice], own, config=FLAT, return_unknown_args=True)
    return dataclasses.replace(value, **{name: part})  # type: ignore[type-var]


def choose_all(value: T, arguments: Sequence[str]) -> tuple[T, list[str]]:
    """Applies the options that pick a part (``--outer ppo``), those of the parts picked included (``--encoder cnn``).

    Returns:
        The value with these parts, and the arguments that are left.
    """
    left = list(arguments)
    for name in choices_of(type(value)):
        if (choice := value_of(f"--{name}", left)) is not None:
            value, left = choose(value, name, choice, left), without(f"--{name}", left)
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(part := getattr(value, field.name)):
            chosen, left = choose_all(part, left)
            value = value if chosen is part else dataclasses.replace(value, **{field.name: chosen})  # type: ignore[type-var]
    return value, left


def parts_of(value: Any) -> list[Any]:
    """A dataclass and every dataclass among its fields, and theirs."""
    inner = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [value, *(part for one in inner if dataclasses.is_dataclass(one) for part in parts_of(one))]


def is_open_field(cls: type, name: str) -> bool:
    """Whether a field may hold classes that others register."""
    hint = fields_of(cls)[name]
    return any(map(is_open, (hint, *typing.get_args(hint))))


def fields_of(cls: type, *, skip: Sequence[str] = ()) -> dict[str, Any]:
    """The annotations of a dataclass' fields, those that can be set."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init and field.name not in skip}


def choice_name(cls: type) -> str:
    return "none" if cls is type(None) else kebab(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__))


def kebab(name: str) -> str:
    return name.replace("_", "-").lower()
