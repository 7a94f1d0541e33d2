"""Fields of the dataclasses that users fill in, and the one kind of error that refuses a value."""

import math
import re
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

LARGEST_COUNT, LARGEST_SEED = 2**31 - 1, 2**63 - 1
SMALLEST_SIZE, LARGEST_SIZE = 1e-12, 1e9
"""Sizes of a number that is not 0: the squares of these, and products of such squares, fit single precision."""


class BadField(ValueError):
    """A field of a dataclass has a value that cannot work; the message names both and says what would do."""


def require(
    owner: object, *names: str, above: int | None = None, at_least: int | None = None, at_most: int | None = None
) -> None:
    """Refuses fields of a dataclass that are not the numbers asked for; NaN never is.

    Raises:
        BadField: the first such field.
    """
    bounds = {"more than": above, "at least": at_least, "at most": at_most}
    wanted = " and ".join(f"{relation} {bound}" for relation, bound in bounds.items() if bound is not None)
    for name in names:
        value = getattr(owner, name)
        enough = (above is None or value > above) and (at_least is None or value >= at_least)
        if not (enough and value <= (math.inf if at_most is None else at_most)):
            raise BadField(f"{name} is {value}: use {wanted}")


class UnknownOption(BadField, TypeError):
    """An option that nothing has; Python itself raises a TypeError there."""


def require_numbers(owner: Any) -> None:
    """Refuses fields of a dataclass that are no numbers of their kind, or beyond what can be computed with.

    Fields that are annotated ``int`` or ``float``, and tuples of them; the ends of an interval may be infinite.

    Raises:
        BadField: the first such field.
    """
    for field in fields(owner):
        words, value = set(re.findall(r"\w+", str(field.type))), getattr(owner, field.name)
        if "Literal" in words or not words & {"int", "float"} or (value is None and words & {"None", "Optional"}):
            continue
        largest, whole = LARGEST_SEED if field.name.endswith("seed") else LARGEST_COUNT, "float" not in words
        for number in value if isinstance(value, tuple) else (value,):
            is_number = isinstance(number, Integral if whole else Real) and not isinstance(number, bool)
            if whole and not (is_number and abs(number) <= largest):
                raise BadField(f"{field.name} is {value!r}: use a whole number of at most {largest}")
            if not is_number or number != number:
                raise BadField(f"{field.name} is {value!r}: use a number")
            bounded = not (whole or isinstance(value, tuple))
            if bounded and number and not SMALLEST_SIZE <= abs(number) <= LARGEST_SIZE:
                bounds = f"{SMALLEST_SIZE:g} and {LARGEST_SIZE:g}"
                raise BadField(f"{field.name} is {value!r}: use 0 or a size between {bounds}")
