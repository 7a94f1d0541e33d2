"""Shape annotations checked at run time: of every function, in every test, its first calls and samples of later ones.

Checking all calls, and preparing to check functions that no test calls, took half of the time of the tests.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping

FIRST = 8  # calls of a function in a test: all are checked; later ones are where their number is a power of 2
EVERY = 64  # and these
_plain = jaxtyping.jaxtyped
_tests = 0


def install(package: str) -> None:
    """Of all modules of ``package`` that are imported from now on; ``begin_test`` is to be called before each test."""
    jaxtyping.jaxtyped = sparing  # type: ignore[assignment]  # the import hook writes this name before every function
    jaxtyping.install_import_hook([package], "beartype.beartype")


def begin_test() -> None:
    global _tests
    _tests += 1


def sparing(fn: Any = None, *, typechecker: Any) -> Any:
    """As ``jaxtyping.jaxtyped`` on a function or a dataclass, but sparing."""
    if fn is None:
        return functools.partial(sparing, typechecker=typechecker)
    if _is_of_warp(fn):
        return fn
    if inspect.isclass(fn):
        if dataclasses.is_dataclass(fn) and not hasattr(fn.__init__, "is_checked"):
            fn.__init__ = _checked(fn.__init__, typechecker)
        return fn
    return _checked(fn, typechecker) if inspect.isfunction(fn) else _plain(fn, typechecker=typechecker)


def _is_of_warp(fn: Any) -> bool:
    """Whether Warp made it or is to read it: it compiles a function as it is written, with what that closes over."""
    kinds = [fn, *getattr(fn, "__annotations__", {}).values()]
    return any(type(kind).__module__.startswith("warp.") for kind in kinds)


def _checked(fn: Callable[..., Any], typechecker: Any) -> Callable[..., Any]:
    test, calls, check = -1, 0, None

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal test, calls, check
        __tracebackhide__ = True
        if test != _tests:
            test, calls = _tests, 0
        calls += 1
        if calls > FIRST and calls % EVERY and calls & (calls - 1):
            return fn(*args, **kwargs)
        if check is None:
            check = _plain(fn, typechecker=typechecker)
        return check(*args, **kwargs)

    call.is_checked = True  # type: ignore[attr-defined]
    return call
