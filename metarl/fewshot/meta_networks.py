"""Meta Networks (Munkhdalai & Yu 2017): a network's weights of two speeds, the fast ones made from loss gradients.

Of each support example, the gradient of the base learner's loss in its slow weights becomes a set of fast weights, by a
small network that every weight passes through by itself; a memory holds these, by the example's embedding. A query
example attends to the memory by its own embedding, and the base learner predicts with slow and fast weights: a layer is
act(x W) + act(x W*). The embedding has fast weights, too, made from the gradients of its own loss.

Ours differs from the paper: the embedding's gradients are averaged over the support set before its fast weights are
made of them (the paper: an LSTM over a sample of them), its loss is the task's at any number of shots (the paper:
contrastive beyond one shot), every layer but the first has fast weights, and networks are perceptrons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import normalize

from metarl.envs.api import EnvSpec
from metarl.envs.fields import require, require_numbers
from metarl.fewshot.episodes import Episodes, Examples, ExampleSpec, example_loss
from metarl.fewshot.learner import FewShot, LearnerState, descend, loss_of
from metarl.networks.layers import glorot
from metarl.networks.mlp import ACTIVATIONS
from metarl.networks.predictors import MLP
from metarl.types import Metrics, Params

SMALLEST = 7.0  # exp(-7): gradients below it enter the maker linearly (Andrychowicz et al. 2016, appendix A)


@dataclass(frozen=True)
class MetaNetworks(FewShot):
    called: ClassVar[str] = "meta_networks"

    network: MLP = field(default_factory=lambda: MLP((32, 32)))
    """The base learner's layers, and the embedding's."""
    maker_size: int = 20
    """Hidden units of the networks that make fast weights."""
    learning_rate: float = 1e-3
    """Adam's step size."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "maker_size", at_least=1)
        require(self, "learning_rate", above=0)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> LearnerState:
        self.require_fits(spec)
        assert isinstance(spec, ExampleSpec)
        parts = {
            "base": self.network.init(spec.shape, spec.action_dim, generator),
            "embedding": self.network.init(spec.shape, spec.action_dim, generator),
            "base_maker": maker(self.maker_size, generator),
            "embedding_maker": maker(self.maker_size, generator),
        }
        return LearnerState({f"{part}.{name}": x for part, params in parts.items() for name, x in params.items()}, {})

    def predict(self, meta: Params, support: Examples, x: Tensor, spec: ExampleSpec) -> Float[Tensor, "query out"]:
        """Of one task's query inputs."""
        base, embedding = part(meta, "base"), part(meta, "embedding")
        mean_gradient = {k: g.mean(0) for k, g in self.gradients(embedding, support, spec).items()}
        to_embed = made(part(meta, "embedding_maker"), mean_gradient)
        memory = made(part(meta, "base_maker"), self.gradients(base, support, spec))  # leaves [support ...]

        def embed(x: Tensor) -> Float[Tensor, "n feature"]:
            hidden, _ = self.layers(
                embedding, {name: weight.unsqueeze(0) for name, weight in to_embed.items()}, None, x
            )
            return normalize(hidden, dim=-1)

        attention = (embed(x) @ embed(support.x).T).softmax(-1)
        _, prediction = self.layers(base, memory, attention, x)
        return prediction

    def gradients(self, params: Params, support: Examples, spec: ExampleSpec) -> Params:
        """Of each support example's loss in the slow weights [support ...], taken for constants."""
        slow = {name: value.detach() for name, value in params.items()}
        loss = loss_of(spec)

        def of_example(x: Tensor, y: Tensor) -> Params:
            one = Examples(x.unsqueeze(0), y.unsqueeze(0))
            return grad(lambda fast: loss(self.network, slow | fast, one))({k: slow[k] for k in self.fast})

        return {name: value.detach() for name, value in vmap(of_example)(support.x, support.y).items()}

    @property
    def fast(self) -> list[str]:
        """The weights that have fast ones."""
        return [*(f"weight_{layer}" for layer in range(1, len(self.network.hidden_sizes))), "weight_head"]

    def layers(
        self, slow: Params, fast: Params, attention: Float[Tensor, "n memory"] | None, x: Float[Tensor, "n ..."]
    ) -> tuple[Float[Tensor, "n feature"], Float[Tensor, "n out"]]:
        """Features and predictions with weights of both speeds.

        Args:
            fast: leaves [memory ...]; ``attention`` says how much each example takes of which (None: there is one).
        """
        act, hidden = ACTIVATIONS[self.network.activation], x.flatten(1)

        def quick(name: str) -> Float[Tensor, "n out"]:
            """x W*, with W* the attended mean of the memory: the mean of the products is the same."""
            if attention is None:
                return hidden @ fast[name][0]
            return torch.einsum("nm,nf,mfo->no", attention, hidden, fast[name])

        for layer in range(len(self.network.hidden_sizes)):
            name = f"weight_{layer}"
            slowly = act(hidden @ slow[name] + slow[f"bias_{layer}"])
            hidden = slowly + act(quick(name)) if name in fast else slowly
        return hidden, hidden @ slow["weight_head"] + slow["bias_head"] + quick("weight_head")

    def predictions(
        self, state: Any, episodes: Episodes, scales: Sequence[float]
    ) -> list[Float[Tensor, "task query out"]]:
        with torch.no_grad():
            return [self.of_tasks(state.meta, episodes)]

    def of_tasks(self, meta: Params, episodes: Episodes) -> Float[Tensor, "task query out"]:
        def of_task(support: Examples, x: Tensor) -> Tensor:
            return self.predict(meta, support, x, episodes.spec)

        prediction: Tensor = vmap(of_task)(episodes.support, episodes.query.x)
        return prediction

    def update(
        self, state: LearnerState, episodes: Episodes, generator: torch.Generator
    ) -> tuple[LearnerState, Metrics]:
        def meta_loss(meta: Params) -> Float[Tensor, ""]:
            return example_loss(self.of_tasks(meta, episodes), episodes.query.y, episodes.spec).mean()

        return descend(state, meta_loss, self.learning_rate)


def maker(size: int, generator: torch.Generator) -> Params:
    """A network of one hidden layer from a preprocessed gradient (2 numbers) to a fast weight."""
    zeros = torch.zeros(size, device=generator.device)
    return {"in": glorot((2, size), 2, size, generator), "bias": zeros, "out": glorot((size, 1), size, 1, generator)}


def made(params: Params, gradient: Params) -> Params:
    """Fast weights of the shapes of the gradients: each is made of its own gradient alone."""

    def of_weight(gradient: Tensor) -> Tensor:
        return (torch.relu(preprocessed(gradient) @ params["in"] + params["bias"]) @ params["out"]).squeeze(-1)

    return {name: of_weight(value) for name, value in gradient.items()}


def preprocessed(gradient: Float[Tensor, "..."]) -> Float[Tensor, "... 2"]:
    """(log |g| / p, sign g), or (-1, e^p g) where |g| < e^-p (Andrychowicz et al. 2016, appendix A)."""
    size = gradient.abs()
    large = size >= math.exp(-SMALLEST)
    magnitude = (size.clamp(min=math.exp(-SMALLEST)).log() / SMALLEST).where(large, -1.0)
    return torch.stack([magnitude, gradient.sign().where(large, math.exp(SMALLEST) * gradient)], dim=-1)


def part(meta: Params, name: str) -> Params:
    """The parameters of one of the networks."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in meta.items() if key.startswith(prefix)}
