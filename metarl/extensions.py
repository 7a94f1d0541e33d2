"""What others add: learners, policies, encoders of observations, known by the names of their classes.

A class becomes known by :func:`register`, in a script, in a file named with ``--code``, or by being an entry point of
an installed package, in the group ``metarl.learners`` or ``metarl.policies``. A run folder holds the name of a class,
never where to find it: what it says is looked up here, and nothing is run for it.
"""

import dataclasses
import functools
import types
import typing
import warnings
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

GROUPS = ("metarl.learners", "metarl.policies")  # of entry points
METHODS = ("init", "explorer", "actor", "act", "credit", "adapt", "update", "without_adaptation", "stages", "describe")

LEARNERS: dict[str, type] = {}
"""Every meta-learner by the name of its class."""
PARTS: dict[type, dict[str, type]] = {}
"""What a field annotated with an interface may hold: its registered subclasses, by the names of their classes."""

Class = TypeVar("Class", bound=type)


def interface(cls: Class) -> Class:
    """Opens a base class: a field annotated with it may hold any registered subclass."""
    PARTS[cls] = {}
    return cls


def register(cls: Class) -> Class:
    """Makes a frozen dataclass known, as a decorator above ``@dataclass``: a learner, a policy or an encoder.

    Raises:
        BadField: it is none of these, or has the name of one of this library's.
    """
    from metarl.envs.fields import BadField  # here, for it imports torch

    if not dataclasses.is_dataclass(cls):
        raise BadField(f"register got {cls!r}: use a frozen dataclass, whose fields are its options")
    homes = [known for base, known in PARTS.items() if issubclass(cls, base)]
    if not homes and all(callable(getattr(cls, name, None)) for name in METHODS):
        homes = [LEARNERS]
    if not homes:
        wanted = ", ".join(sorted(base.__name__ for base in PARTS))
        raise BadField(
            f"register got {cls.__name__}: use a subclass of {wanted}, or a MetaLearner with all its methods"
        )
    for known in homes:
        for name, other in known.items():
            if name.lower() == cls.__name__.lower() and (name != cls.__name__ or _is_ours(other)):
                raise BadField(
                    f"register got {cls.__name__}: {other.__module__} has a {name}, call yours something else"
                )
        known[cls.__name__] = cls
    return cls


def members(hint: Any) -> tuple[Any, ...]:
    """What an annotation allows: the members of a union, the registered classes of an interface, or the one type."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    parts = typing.get_args(hint) if union else (hint,)
    return tuple(cls for part in parts for cls in (PARTS[part].values() if is_open(part) else (part,)))


def is_open(hint: Any) -> bool:
    """Whether an annotation is an interface, of which others may register classes."""
    return isinstance(hint, type) and hint in PARTS


def installed() -> list[EntryPoint]:
    """The entry points of installed packages; nothing is imported."""
    return [entry for group in GROUPS for entry in entry_points(group=group)]


@functools.cache
def load_installed() -> None:
    """Imports and registers what installed packages add, once; a package that fails costs a warning."""
    for entry in installed():
        try:
            register(entry.load())
        except Exception as error:
            warnings.warn(f"entry point {entry.name} ({entry.value}) is left out: {error}", stacklevel=2)


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("metarl.")
