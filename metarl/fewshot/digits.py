"""The digits that scikit-learn ships: 1,797 images of 8 x 8 pixels (UCI, Alpaydin & Kaynak 1998); no download."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch

from metarl.envs.fields import BadField
from metarl.fewshot.images import Images, ImageTasks, by_class

TRAINED_ON = 5  # digits 0 to 4; 5 to 9 are held out


@dataclass(frozen=True)
class Digits(ImageTasks):
    """Digits 0 to 4 to train on, each turned by 0, 90, 180 and 270 degrees as four classes (20 in all); 5 to 9,
    upright, to test on: five held-out classes, so that a test of 5 ways always has these, other images and labels.

    Two pairs of classes to train on look almost alike: 0 and 1 turned by half a turn.
    """

    name: ClassVar[str] = "digits"

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    @property
    def brightest(self) -> float:
        return 16.0

    def images(self) -> Images:
        return digits()


@functools.cache
def digits() -> Images:
    """The data set, in the split of :class:`Digits`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BadField(
            "task is 'digits': they come with scikit-learn, use pip install 'metarl-toolkit[fewshot]'"
        ) from error
    data = load_digits()
    pixels, label = torch.tensor(data.images, dtype=torch.uint8).unsqueeze(1), torch.tensor(data.target)
    trained = by_class([pixels[label == digit] for digit in range(TRAINED_ON)], TRAINED_ON, rotations=4)
    tested = by_class([pixels[label == digit] for digit in range(TRAINED_ON, 10)], 0)
    first = torch.cat([trained.first, len(trained.pixels) + tested.first])
    size = torch.cat([trained.size, tested.size])
    return Images(torch.cat([trained.pixels, tested.pixels]), first, size, trained.num_train)


Digits.presets = {"n5_k1": Digits(), "n5_k5": Digits(shots=5)}
