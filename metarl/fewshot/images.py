"""Few-shot classification of images: classes to train on, to validate by and to test on; N ways and K shots."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from metarl.envs.fields import BadField, require
from metarl.evaluate import VALIDATION_SEED
from metarl.fewshot.episodes import Episodes, Examples, ExampleSpec, FewShotTasks
from metarl.seeds import stream


class Images(NamedTuple):
    """A data set in memory, class by class: classes to train on first, then those of validation, then held out ones."""

    pixels: UInt8[Tensor, "image channel height width"]
    first: Int[Tensor, " cls"]
    """Where the images of a class begin."""
    size: Int[Tensor, " cls"]
    """Images of a class."""
    num_train: int
    num_validation: int = 0


@dataclass(frozen=True)
class ImageTasks(FewShotTasks):
    """Task parameter: the class behind each label [way], drawn without replacement."""

    more_validation: ClassVar[str] = "use fewer ways"
    """What gives a data set more classes to validate by."""

    shots: int = 1
    """Images of each class to adapt to (K)."""
    queries: int = 15
    """Other images of each class, by which the adapted network is judged."""
    ways: int = 5
    """Classes of an episode (N)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "ways", at_least=2)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""

    @property
    @abstractmethod
    def brightest(self) -> float:
        """The pixel value that a network sees as 1."""

    @abstractmethod
    def images(self) -> Images:
        """The data set, read once a process.

        Raises:
            BadField: it is not here.
        """

    @property
    def num_classes(self) -> int:
        """Classes to train on; 0 where the data set is not here."""
        try:
            return self.images().num_train
        except BadField:
            return 0

    @property
    def spec(self) -> ExampleSpec:
        size = self.shape[0] * self.shape[1] * self.shape[2]
        return ExampleSpec(
            obs_dim=size,
            action_dim=self.ways,
            horizon=1,
            terminates=False,
            has_success=True,
            discrete=True,
            shape=self.shape,
            num_classes=self.num_classes,
        )

    @property
    def task_size(self) -> int:
        return self.ways

    def require_ready(self) -> None:
        images = self.images()
        held_out = len(images.size) - images.num_train - images.num_validation
        for name, there in (("to train on", images.num_train), ("held out", held_out)):
            if there < self.ways:
                raise BadField(f"ways is {self.ways}: {self.name} has {there} classes {name}, use fewer ways")
        if (fewest := int(images.size.min())) < self.shots + self.queries:
            total = self.shots + self.queries
            raise BadField(f"shots + queries is {total}: a class of {self.name} has {fewest} images, use fewer")

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task way"]:
        return self._choose(range(self.images().num_train), num_tasks, generator)

    def held_out(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task way"]:
        """Classes that training never sees."""
        images = self.images()
        return self._choose(range(images.num_train + images.num_validation, len(images.size)), num_tasks, generator)

    def validation_tasks(self, num_tasks: int) -> Float[Tensor, "task way"]:
        """Classes that neither training nor the test has.

        Raises:
            BadField: there are fewer than ways.
        """
        images = self.images()
        if images.num_validation < self.ways:
            raise BadField(
                f"ways is {self.ways}: {self.name} keeps {images.num_validation} classes for validation, "
                f"{self.more_validation}"
            )
        classes = range(images.num_train, images.num_train + images.num_validation)
        return self._choose(classes, num_tasks, stream(VALIDATION_SEED, "tasks"))

    def _choose(self, classes: Sequence[int], num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task way"]:
        order = torch.rand(num_tasks, len(classes), generator=generator, device=generator.device).argsort(1)
        return (classes[0] + order[:, : self.ways]).to(torch.get_default_dtype())

    def draw(self, task: Float[Tensor, "task way"], generator: torch.Generator) -> Episodes:
        """Images of a class are drawn without replacement: no query image is in the support set."""
        images, device = self.images(), generator.device
        classes = task.long().to(device)
        size, first = images.size.to(device)[classes], images.first.to(device)[classes]
        score = torch.rand(*classes.shape, int(images.size.max()), generator=generator, device=device)
        beyond = torch.arange(score.shape[-1], device=device) >= size.unsqueeze(-1)
        total = self.shots + self.queries
        chosen = score.masked_fill(beyond, -1.0).topk(total, dim=-1).indices + first.unsqueeze(-1)  # [task way example]
        chosen = chosen.transpose(1, 2).flatten(1)  # the first of every way, then the second ...
        x = images.pixels[chosen.to(images.pixels.device)].to(device, torch.get_default_dtype()) / self.brightest
        y = torch.eye(self.ways, device=device).repeat(total, 1).expand(len(classes), -1, -1)
        cut = self.shots * self.ways
        support, query = Examples(x[:, :cut], y[:, :cut]), Examples(x[:, cut:], y[:, cut:])
        return Episodes(support, query, classes, self.spec)


def by_class(
    train: Sequence[Tensor], validation: Sequence[Tensor], test: Sequence[Tensor], *, rotations: int = 1
) -> Images:
    """A data set of classes [image channel height width]; each is ``rotations`` classes, turned by 90 degrees more."""

    def turned(classes: Sequence[Tensor]) -> list[Tensor]:
        return [torch.rot90(pixels, quarter, (2, 3)) for quarter in range(rotations) for pixels in classes]

    return images_of(turned(train), turned(validation), turned(test))


def images_of(train: Sequence[Tensor], validation: Sequence[Tensor], test: Sequence[Tensor]) -> Images:
    """A data set of classes [image channel height width] as they are."""
    classes = [*train, *validation, *test]
    size = torch.tensor([len(pixels) for pixels in classes])
    return Images(torch.cat(classes), size.cumsum(0) - size, size, len(train), len(validation))
