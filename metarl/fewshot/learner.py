"""The protocol between few-shot learners and their loop, and what all learners share."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.fewshot.episodes import Episodes, Examples, ExampleSpec, example_loss
from metarl.losses.optim import OptimizerState, adam_step, flatten
from metarl.networks.predictors import MLP, ConvNet
from metarl.types import Description, Metrics, Params, Stage, inner_stages

State = TypeVar("State")


@runtime_checkable
class FewShotLearner(Protocol[State]):
    """An algorithm: its hyperparameters, and these pure functions of them."""

    called: ClassVar[str]
    """Its name on the command line."""

    @property
    def adapt_steps(self) -> int:
        """Inner gradient steps; 0 of a learner that adapts at once."""

    def stages(self, trial: int, *, steps: int | None = None, later: float = 1.0) -> list[Stage]:
        """How it adapts; none of its stages is an episode of a trial."""

    def describe(self) -> Description:
        """What is said of it."""

    def init(self, spec: EnvSpec, generator: torch.Generator) -> State:
        """Meta-parameters and optimizer state before training."""

    def predictions(
        self, state: State, episodes: Episodes, scales: Sequence[float]
    ) -> list[Float[Tensor, "task query out"]]:
        """Of the query examples: before adaptation and after each inner step on the support set, its step size times
        the scale; a learner without inner steps has one prediction, after it has seen the support set."""

    def update(self, state: State, episodes: Episodes, generator: torch.Generator) -> tuple[State, Metrics]:
        """One meta-update from an episode of each task; what it draws comes from ``generator``."""


class LearnerState(NamedTuple):
    meta: Params
    optimizer: OptimizerState


class FewShot:
    """What few-shot learners have in common, for those who ask any learner."""

    called: ClassVar[str] = ""

    @property
    def adapt_steps(self) -> int:
        return 0

    def stages(self, trial: int, *, steps: int | None = None, later: float = 1.0) -> list[Stage]:
        """Before any inner step and after each; of a learner that has none, after it has seen the support set."""
        steps = self.adapt_steps if steps is None else steps
        return inner_stages(steps, later) if self.adapt_steps else [Stage("adapted")]

    def describe(self) -> Description:
        return Description(type(self).__name__)

    def require_fits(self, spec: EnvSpec) -> None:
        """Refuses tasks that it cannot learn.

        Raises:
            BadField: they have no examples, or labels of another kind.
        """
        if not isinstance(spec, ExampleSpec):
            raise BadField(f"learner is {self.called!r}, of examples: these tasks have worlds to act in")
        if isinstance(network := getattr(self, "network", None), ConvNet) and len(spec.shape) != 3:
            raise BadField(f"network is {type(network).__name__}: inputs of shape {spec.shape} are no images, use MLP")


def require_classes(spec: ExampleSpec, name: str) -> None:
    if not spec.discrete:
        raise BadField(f"task is a regression: {name} tells classes apart, use maml, reptile or meta_networks")


def expanded(params: Params, num_tasks: int) -> Params:
    """The same parameters for every task [task ...]."""
    return {name: value.expand(num_tasks, *value.shape) for name, value in params.items()}


def loss_of(spec: ExampleSpec) -> Callable[[MLP | ConvNet, Params, Examples], Float[Tensor, ""]]:
    """The loss of one task's examples, as inner steps descend it and the outer step judges by it."""

    def loss(network: MLP | ConvNet, params: Params, examples: Examples) -> Float[Tensor, ""]:
        return example_loss(network(params, examples.x), examples.y, spec)

    return loss


def predict(network: MLP | ConvNet, phi: Params, x: Float[Tensor, "..."]) -> Float[Tensor, "task query out"]:
    """With parameters of every task [task ...]."""
    prediction: Tensor = vmap(network)(phi, x)
    return prediction


def descend(state: Any, meta_loss: Callable[[Params], Float[Tensor, ""]], learning_rate: float) -> tuple[Any, Metrics]:
    """A step of Adam down a loss of the meta-parameters; none where the gradient is not finite."""
    leaves = {name: value.detach().requires_grad_() for name, value in state.meta.items()}
    value = meta_loss(leaves)
    pieces = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    gradient = dict(zip(leaves, pieces, strict=True))
    norm = flatten(gradient).norm().item()
    if not norm < float("inf"):  # false for NaN
        return state, {"train/skipped_updates": 1.0}
    meta, optimizer = adam_step(state.meta, gradient, state.optimizer, learning_rate)
    metrics = {"train/loss_before": value.item(), "train/meta_gradient_norm": norm}
    return state._replace(meta=meta, optimizer=optimizer), metrics
