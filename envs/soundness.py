"""Which numbers a world may say: what is infinite, or as good as that, spoils an episode."""

from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import LARGEST


def sound(x: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Neither NaN nor infinite, nor as good as that."""
    return x.abs() <= LARGEST  # False for NaN


def all_sound(x: Float[Tensor, "*shape"]) -> bool:
    """Whether all are, in one pass and without a mask."""
    low, high = x.aminmax()
    return low.item() >= -LARGEST and high.item() <= LARGEST  # False for NaN
