"""Learners that compare: Prototypical Networks, and the nearest neighbour that nobody trained."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from metarl.envs.api import EnvSpec
from metarl.envs.fields import require, require_numbers
from metarl.fewshot.episodes import Episodes, Examples, ExampleSpec, example_loss
from metarl.fewshot.learner import FewShot, LearnerState, descend, require_classes
from metarl.networks.predictors import MLP, ConvNet
from metarl.types import Metrics, Params


@dataclass(frozen=True)
class Prototypical(FewShot):
    """Prototypical Networks (Snell, Swersky & Zemel 2017): a class is the mean embedding of its support examples, and
    logits are minus the squared distances to these."""

    called: ClassVar[str] = "prototypical"

    network: MLP | ConvNet = field(default_factory=MLP)
    """What embeds."""
    embedding_size: int = 64
    """Numbers of an embedding."""
    learning_rate: float = 1e-3
    """Adam's step size."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "embedding_size", at_least=1)
        require(self, "learning_rate", above=0)

    def require_fits(self, spec: EnvSpec) -> None:
        super().require_fits(spec)
        assert isinstance(spec, ExampleSpec)
        require_classes(spec, self.called)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> LearnerState:
        self.require_fits(spec)
        assert isinstance(spec, ExampleSpec)
        return LearnerState(self.network.init(spec.shape, self.embedding_size, generator), {})

    def logits(self, params: Params, support: Examples, x: Tensor) -> Float[Tensor, "query way"]:
        """Of one task."""
        prototypes = class_means(self.network(params, support.x), support.y)
        return -squared_distances(self.network(params, x), prototypes)

    def predictions(
        self, state: Any, episodes: Episodes, scales: Sequence[float]
    ) -> list[Float[Tensor, "task query way"]]:
        with torch.no_grad():
            return [vmap(lambda support, x: self.logits(state.meta, support, x))(episodes.support, episodes.query.x)]

    def update(
        self, state: LearnerState, episodes: Episodes, generator: torch.Generator
    ) -> tuple[LearnerState, Metrics]:
        def meta_loss(meta: Params) -> Float[Tensor, ""]:
            logits = vmap(lambda support, x: self.logits(meta, support, x))(episodes.support, episodes.query.x)
            return example_loss(logits, episodes.query.y, episodes.spec).mean()

        return descend(state, meta_loss, self.learning_rate)


@dataclass(frozen=True)
class Nearest(FewShot):
    """The label of the nearest support example, by the squared distance of the inputs themselves; learns nothing.

    The logits of a classification are minus the distances to the nearest example of each class.
    """

    called: ClassVar[str] = "nearest"

    def init(self, spec: EnvSpec, generator: torch.Generator) -> LearnerState:
        self.require_fits(spec)
        return LearnerState({"nothing": torch.zeros(0, device=generator.device)}, {})

    def predictions(
        self, state: Any, episodes: Episodes, scales: Sequence[float]
    ) -> list[Float[Tensor, "task query out"]]:
        distance = squared_distances(episodes.query.x.flatten(2), episodes.support.x.flatten(2))
        labels = episodes.support.y
        if not episodes.spec.discrete:
            return [labels.gather(1, distance.argmin(-1, keepdim=True).expand(-1, -1, labels.shape[-1]))]
        of_way = distance.unsqueeze(-1).where(labels.unsqueeze(1) > 0, torch.inf)  # [task query support way]
        return [-of_way.amin(2)]

    def update(
        self, state: LearnerState, episodes: Episodes, generator: torch.Generator
    ) -> tuple[LearnerState, Metrics]:
        return state, {}


def class_means(
    embedding: Float[Tensor, "support feature"], y: Float[Tensor, "support way"]
) -> Float[Tensor, "way feature"]:
    """The mean embedding of each class."""
    return (y.T @ embedding) / y.sum(0).unsqueeze(-1)


def squared_distances(
    x: Float[Tensor, "*task n feature"], y: Float[Tensor, "*task m feature"]
) -> Float[Tensor, "*task n m"]:
    """|x_i - y_j|^2, by differences: the expanded square loses what is small."""
    return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
