"""Fields of the dataclasses that users fill in, and the one kind of error that refuses a value."""

import math


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
