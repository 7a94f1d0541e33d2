"""Data sets of images in a local folder, in the layouts in which they are published; read with Pillow, once a process.

torchvision's readers are not used: its wheel does not load beside every build of torch.
"""

import csv
import functools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from metarl.envs.fields import BadField, require
from metarl.fewshot.images import Images, ImageTasks, by_class

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Omniglot(ImageTasks):
    """Handwritten characters (Lake et al. 2015), 20 images each, 28 x 28 pixels, ink is 1; each character turned by 0,
    90, 180 and 270 degrees is four classes (Santoro et al. 2016). Trained on images_background, tested on
    images_evaluation: the data set's own split by alphabets, where much published work draws 1,200 characters of both.
    """

    name: ClassVar[str] = "omniglot"

    folder: str = "data/omniglot"
    """Folder that holds images_background/ and images_evaluation/, as published: alphabet/character/*.png."""
    held_back: int = 0
    """Characters kept from training, the last ones, to choose a checkpoint by."""
    more_validation = "keep some back with --held-back"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "held_back", at_least=0)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 28, 28

    @property
    def brightest(self) -> float:
        return 255.0

    def images(self) -> Images:
        return omniglot(self.folder, self.held_back)


@dataclass(frozen=True)
class MiniImageNet(ImageTasks):
    """100 classes of ImageNet, 600 images each, 84 x 84 pixels, in the split of Ravi & Larochelle 2017: 64 classes to
    train on, 16 to validate by where they are here, 20 to test on."""

    name: ClassVar[str] = "mini_imagenet"

    folder: str = "data/mini_imagenet"
    """Folder with images/ and train.csv, test.csv and perhaps val.csv (columns filename, label), or with train/, test/
    and perhaps val/ of a folder a class."""
    more_validation = "bring its val.csv or val/ there"

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, 84, 84

    @property
    def brightest(self) -> float:
        return 255.0

    def images(self) -> Images:
        return mini_imagenet(self.folder)


@functools.cache
def omniglot(folder: str, held_back: int) -> Images:
    """Omniglot from a local folder; the last characters to train on are kept back for validation."""
    splits = []
    for split in ("images_background", "images_evaluation"):
        root = Path(folder) / split
        characters = sorted(path for path in root.glob("*/*") if path.is_dir())
        if not characters:
            raise BadField(
                f"folder is {folder!r}: it has no {split}/<alphabet>/<character>/*.png, unpack Omniglot's "
                f"{split}.zip there, or name another folder with --folder"
            )
        splits.append([read_images(files_of(path), 28, "L") for path in characters])
    ink = [255 - pixels for split in splits for pixels in split]
    cut = len(splits[0]) - held_back
    if cut < 1:
        raise BadField(f"held_back is {held_back}: {folder} has {len(splits[0])} characters to train on, use fewer")
    return by_class(ink[:cut], ink[cut : len(splits[0])], ink[len(splits[0]) :], rotations=4)


@functools.cache
def mini_imagenet(folder: str) -> Images:
    """mini-ImageNet from a local folder."""
    root = Path(folder)
    splits = {}
    for split in ("train", "val", "test"):
        if (root / f"{split}.csv").is_file():
            files = files_of_table(root / f"{split}.csv", root / "images")
        else:
            files = [files_of(path) for path in sorted(root.glob(f"{split}/*")) if path.is_dir()]
        if not files and split != "val":
            raise BadField(
                f"folder is {folder!r}: it has neither {split}.csv beside images/ nor {split}/<class>/, unpack "
                "mini-ImageNet there, or name another folder with --folder"
            )
        splits[split] = [read_images(paths, 84, "RGB") for paths in files]
    return by_class(splits["train"], splits["val"], splits["test"])


def files_of(folder: Path) -> list[Path]:
    """The images in a folder, by name."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise BadField(f"folder is {str(folder)!r}: a class without images, remove it or fill it")
    return files


def files_of_table(table: Path, images: Path) -> list[list[Path]]:
    """The images of each class that a table names, classes by name."""
    found: dict[str, list[Path]] = defaultdict(list)
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            try:
                found[row["label"]].append(images / row["filename"])
            except KeyError as error:
                raise BadField(f"{table} has no column {error}: it needs filename and label") from error
    return [found[label] for label in sorted(found)]


def read_images(files: list[Path], side: int, mode: str) -> UInt8[Tensor, "image channel side side"]:
    """Images of a class, scaled to ``side`` pixels; ``mode`` is Pillow's: L (grey) or RGB."""
    from PIL import Image

    pixels = []
    for path in files:
        try:
            with Image.open(path) as picture:
                pixels.append(np.asarray(picture.convert(mode).resize((side, side), Image.Resampling.LANCZOS)))
        except OSError as error:
            raise BadField(f"{path} cannot be read as an image: {error}") from error
    stacked = torch.from_numpy(np.stack(pixels))
    return stacked.unsqueeze(1) if mode == "L" else stacked.permute(0, 3, 1, 2).contiguous()


Omniglot.presets = {"n5_k1": Omniglot(), "n5_k5": Omniglot(shots=5), "n20_k1": Omniglot(ways=20, queries=5)}
MiniImageNet.presets = {"n5_k1": MiniImageNet(), "n5_k5": MiniImageNet(shots=5)}
