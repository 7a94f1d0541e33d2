"""The digits that scikit-learn ships: 1,797 images of 8 x 8 pixels (UCI, Alpaydin & Kaynak 1998); no download."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.envs.fields import BadField, require
from metarl.fewshot.images import Images, ImageTasks, images_of

TRAINED_ON = 5  # digits 0 to 4; 5 to 9 are held out


@dataclass(frozen=True)
class Digits(ImageTasks):
    """Digits 0 to 4 to train on, each turned by 0, 90, 180 and 270 degrees, as it is and mirrored, as eight classes (40
    in all); 5 to 9, upright, to test on: five held-out classes, so that a test of 5 ways always has these, other images
    and labels.

    Some classes to train on look almost alike, such as the eight of 0.
    """

    name: ClassVar[str] = "digits"

    held_back: int = 0
    """Digits kept from training, 4 and those before it, each in its eight views, to choose a checkpoint or
    hyperparameters by; 2 give 16 classes."""
    more_validation = "keep 2 digits back with --held-back 2"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "held_back", at_least=0, at_most=TRAINED_ON - 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    @property
    def brightest(self) -> float:
        return 16.0

    def images(self) -> Images:
        return digits(self.held_back)


@functools.cache
def digits(held_back: int) -> Images:
    """The data set, in the split of :class:`Digits`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BadField(
            "task is 'digits': they come with scikit-learn, use pip install 'metarl-toolkit[fewshot]'"
        ) from error
    data = load_digits()
    pixels, label = torch.tensor(data.images, dtype=torch.uint8).unsqueeze(1), torch.tensor(data.target)
    by_digit, cut = [pixels[label == digit] for digit in range(10)], TRAINED_ON - held_back

    def views(classes: list[Tensor]) -> list[Tensor]:
        turned = [torch.rot90(images, quarter, (2, 3)) for quarter in range(4) for images in classes]
        return turned + [images.flip(3) for images in turned]

    return images_of(views(by_digit[:cut]), views(by_digit[cut:TRAINED_ON]), by_digit[TRAINED_ON:])


Digits.presets = {"n5_k1": Digits(), "n5_k5": Digits(shots=5)}
