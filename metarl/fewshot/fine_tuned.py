"""The baseline of fine-tuning: trained on all tasks at once, then gradient steps on the support set."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.fewshot.episodes import Episodes, ExampleSpec, class_loss, class_of_example, example_loss, joined
from metarl.fewshot.gradient import InnerSteps
from metarl.fewshot.learner import LearnerState, descend
from metarl.networks.predictors import HEAD
from metarl.types import Metrics, Params


@dataclass(frozen=True)
class FineTuned(InnerSteps):
    """A classifier of all training classes; a task gets a new last layer of zeros, and gradient steps on all parameters
    (with ``head_only`` on that layer alone: the baseline of Chen et al. 2019). A regressor keeps its last layer."""

    called: ClassVar[str] = "fine_tuned"

    adapt_steps: int = 10
    """Inner gradient steps, all on the support set."""
    learning_rate: float = 1e-3
    """Adam's step size in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "learning_rate", above=0)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> LearnerState:
        self.require_fits(spec)
        assert isinstance(spec, ExampleSpec)
        if spec.discrete and not spec.num_classes:
            raise BadField("task has no classes to train on: its data set is not here")
        return LearnerState(self.network.init(spec.shape, spec.num_classes or spec.action_dim, generator), {})

    def begin(self, theta: Params, spec: ExampleSpec) -> Params:
        if not spec.discrete:
            return theta
        weight, bias = (theta[name] for name in HEAD)
        fresh = (weight.new_zeros(len(weight), spec.action_dim), bias.new_zeros(spec.action_dim))
        return theta | dict(zip(HEAD, fresh, strict=True))

    def update(
        self, state: LearnerState, episodes: Episodes, generator: torch.Generator
    ) -> tuple[LearnerState, Metrics]:
        examples = joined(episodes.support, episodes.query)

        def loss(theta: Params) -> Float[Tensor, ""]:
            prediction: Tensor = vmap(lambda x: self.network(theta, x))(examples.x)
            if not episodes.spec.discrete:
                return example_loss(prediction, examples.y, episodes.spec).mean()
            return class_loss(prediction, class_of_example(examples, episodes.classes))

        return descend(state, loss, self.learning_rate)
