"""Learners that adapt by gradient steps on the support set, through the inner step of the RL learners.

:class:`FewShotMAML` is MAML (Finn, Abbeel & Levine 2017), and by its fields FOMAML (``first_order``), Meta-SGD
(``learn_inner_lr``, Li et al. 2017) and ANIL (``head_only``, Raghu et al. 2020). :class:`FewShotReptile` is Reptile
(Nichol, Achiam & Schulman 2018).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metarl.algorithms.gradient import MOST_STEPS, adapt
from metarl.algorithms.meta_gradient import LEARNED_RATE
from metarl.envs.api import EnvSpec
from metarl.envs.fields import require, require_numbers
from metarl.fewshot.episodes import Episodes, Examples, ExampleSpec, joined
from metarl.fewshot.learner import FewShot, LearnerState, descend, expanded, loss_of, predict
from metarl.losses.optim import flatten
from metarl.networks.predictors import HEAD, MLP, ConvNet
from metarl.types import Description, Metrics, Params


@dataclass(frozen=True)
class InnerSteps(FewShot):
    """A network that adapts by gradient steps; how its meta-parameters are learned is up to the subclasses."""

    network: MLP | ConvNet = field(default_factory=MLP)
    """What predicts."""
    adapt_steps: int = 1
    """Inner gradient steps, all on the support set; 0: no adaptation."""
    inner_lr: float = 0.1
    """Step size alpha of the inner gradient step."""
    head_only: bool = False
    """ANIL (Raghu et al. 2020): the last layer alone adapts."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "adapt_steps", at_least=0, at_most=MOST_STEPS)
        require(self, "inner_lr", above=0)

    def describe(self) -> Description:
        return Description(type(self).__name__, inner_lr=self.inner_lr)

    def split(self, meta: Params) -> tuple[Params, Params]:
        """theta, and the step size of each of its parameters that adapts."""
        adapting = HEAD if self.head_only else meta
        return meta, {name: meta[name].new_full((), self.inner_lr) for name in adapting}

    def begin(self, theta: Params, spec: ExampleSpec) -> Params:
        """The network that has not adapted."""
        return theta

    def steps(self, theta: Params, rates: Params, support: Examples, scales: Sequence[float], spec: ExampleSpec) -> Any:
        """phi of every task [task ...] before and after each inner step, as differentiable functions of theta."""
        phi = expanded(self.begin(theta, spec), len(support.y))
        yield phi
        for scale in scales:
            scaled = {name: scale * rate for name, rate in rates.items()}
            phi = vmap(lambda phi, examples: self.step(phi, examples, scaled, spec))(phi, support)  # noqa: B023
            yield phi

    def step(self, phi: Params, examples: Examples, rates: Params, spec: ExampleSpec) -> Params:
        """One inner step of one task."""
        return adapt(self.network, phi, examples, rates, loss_of(spec), first_order=self.first_order)

    @property
    def first_order(self) -> bool:
        """Whether the inner gradient is taken for a constant."""
        return True

    def predictions(
        self, state: Any, episodes: Episodes, scales: Sequence[float]
    ) -> list[Float[Tensor, "task query out"]]:
        theta, rates = self.split(state.meta)
        with torch.no_grad():
            steps = self.steps(theta, rates, episodes.support, scales, episodes.spec)
            return [predict(self.network, phi, episodes.query.x) for phi in steps]


@dataclass(frozen=True)
class FewShotMAML(InnerSteps):
    """MAML on examples: the gradient of the query loss, through the inner steps on the support set, by Adam."""

    called: ClassVar[str] = "maml"

    first_order: bool = False
    """FOMAML: treat the inner gradient as a constant."""
    learn_inner_lr: bool = False
    """Meta-SGD (Li et al. 2017): learn a step size for each parameter, starting from inner_lr."""
    learning_rate: float = 1e-3
    """Adam's step size of the outer step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "learning_rate", above=0)

    def describe(self) -> Description:
        learned = self.learn_inner_lr
        return Description(f"FewShotMAML{' learned step sizes' * learned}", None, self.inner_lr, learned)

    def without_adaptation(self) -> "FewShotMAML":
        """The network to compare with: trained on all tasks jointly."""
        return replace(self, adapt_steps=0)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> LearnerState:
        self.require_fits(spec)
        assert isinstance(spec, ExampleSpec)
        weights = self.network.init(spec.shape, spec.action_dim, generator)
        if not self.learn_inner_lr:
            return LearnerState(weights, {})
        theta, rates = super().split(weights)
        learned = {LEARNED_RATE + name: rate.expand_as(theta[name]).clone() for name, rate in rates.items()}
        return LearnerState(weights | learned, {})

    def split(self, meta: Params) -> tuple[Params, Params]:
        theta, rates = super().split({name: x for name, x in meta.items() if not name.startswith(LEARNED_RATE)})
        return theta, {name: meta.get(LEARNED_RATE + name, rate) for name, rate in rates.items()}

    def meta_loss(self, meta: Params, episodes: Episodes) -> Float[Tensor, ""]:
        """The query loss after the inner steps, its mean over tasks."""
        theta, rates = self.split(meta)
        *_, phi = self.steps(theta, rates, episodes.support, [1.0] * self.adapt_steps, episodes.spec)
        loss = loss_of(episodes.spec)
        return vmap(lambda phi, examples: loss(self.network, phi, examples))(phi, episodes.query).mean()

    def update(
        self, state: LearnerState, episodes: Episodes, generator: torch.Generator
    ) -> tuple[LearnerState, Metrics]:
        return descend(state, lambda meta: self.meta_loss(meta, episodes), self.learning_rate)


@dataclass(frozen=True)
class FewShotReptile(InnerSteps):
    """theta moves towards the mean of the adapted parameters: theta + step_size * (mean phi - theta).

    An episode's support and query examples are both training data here. Inner steps are plain gradient steps (the
    paper's code: Adam without momentum).
    """

    called: ClassVar[str] = "reptile"

    train_steps: int = 5
    """Inner steps of a task in training."""
    minibatch: int = 10
    """Examples of each of these steps, one minibatch after the other, from the first again after the last."""
    step_size: float = 0.1
    """Share epsilon of the way that theta goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "train_steps", "minibatch", at_least=1)
        require(self, "step_size", above=0)

    def without_adaptation(self) -> FewShotMAML:
        """The network to compare with: trained on all tasks jointly."""
        return FewShotMAML(network=self.network, adapt_steps=0, inner_lr=self.inner_lr)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> LearnerState:
        self.require_fits(spec)
        assert isinstance(spec, ExampleSpec)
        return LearnerState(self.network.init(spec.shape, spec.action_dim, generator), {})

    def update(
        self, state: LearnerState, episodes: Episodes, generator: torch.Generator
    ) -> tuple[LearnerState, Metrics]:
        theta, rates = self.split(state.meta)
        examples = joined(episodes.support, episodes.query)
        phi, total = expanded(theta, len(examples.y)), examples.y.shape[1]
        with torch.no_grad():
            for k in range(self.train_steps):
                chosen = torch.arange(k * self.minibatch, (k + 1) * self.minibatch, device=examples.y.device) % total
                part = tree_map(lambda x: x[:, chosen], examples)  # noqa: B023
                phi = vmap(lambda phi, examples: self.step(phi, examples, rates, episodes.spec))(phi, part)
        way = {name: phi[name].mean(0) - value for name, value in theta.items()}
        length = flatten(way).norm().item()
        if not length < float("inf"):  # false for NaN
            return state, {"train/skipped_updates": 1.0}
        meta = {name: value + self.step_size * way[name] for name, value in theta.items()}
        return LearnerState(meta, {}), {"train/meta_gradient_norm": length}
