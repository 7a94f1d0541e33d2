"""The tests' own checks of shapes: which calls they look at, and that the library is under them."""

from dataclasses import dataclass

import pytest
import shape_checks
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from metarl.envs.small.navigation import Navigation
from metarl.rollout import rollout

RIGHT, WRONG = torch.zeros(2, 2), torch.zeros(2, 3)


def refuses(fn, *arguments) -> bool:
    try:
        fn(*arguments)
    except TypeCheckError:
        return True
    return False


def test_the_first_calls_in_a_test_are_checked_and_some_later_ones() -> None:
    @shape_checks.sparing(typechecker=beartype)
    def square(x: Float[Tensor, "side side"]) -> Float[Tensor, "side side"]:
        return x

    assert square(RIGHT) is RIGHT
    checked = [call for call in range(2, 200) if refuses(square, WRONG)]
    assert checked == [*range(2, 9), 16, 32, 64, 128, 192]
    shape_checks.begin_test()
    assert refuses(square, WRONG)


def test_so_are_results_and_fields() -> None:
    @shape_checks.sparing(typechecker=beartype)
    def cut(x: Float[Tensor, "side side"]) -> Float[Tensor, "side side"]:
        return x[1:]

    @shape_checks.sparing(typechecker=beartype)
    @dataclass
    class Square:
        x: Float[Tensor, "side side"]

    assert refuses(cut, RIGHT)
    assert refuses(Square, WRONG)
    assert Square(RIGHT).x is RIGHT


@pytest.mark.parametrize("fn", [rollout, Navigation.__init__, Navigation.sample])
def test_the_library_is_checked(fn) -> None:
    assert fn.is_checked
