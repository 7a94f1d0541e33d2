"""Reptile (Nichol, Achiam & Schulman 2018, algorithm 2), with policy-gradient inner steps: no second derivatives."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from metarl import ranks
from metarl.algorithms.gradient import GradientLearner
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.networks.normalize import learned, updated
from metarl.types import Experience, Metrics, Params


class ReptileState(NamedTuple):
    meta: Params


@dataclass(frozen=True)
class Reptile(GradientLearner):
    """theta moves towards the mean of the adapted parameters: theta + step_size * (mean phi - theta).

    A step on the experience of the adapted policy counts, too, so that an update takes ``adapt_steps`` + 1 inner steps;
    with ``adapt_steps=0`` it is the policy gradient on all tasks jointly.
    """

    step_size: float = 1.0
    """Share epsilon of the way that theta goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "step_size", above=0)
        if context_size := getattr(self.policy, "context_size", 0):
            raise BadField(f"context_size is {context_size}: Reptile learns what adapts, use 0")

    def init(self, spec: EnvSpec, generator: torch.Generator) -> ReptileState:
        return ReptileState(self.initial_weights(spec, generator))

    def update(
        self, state: ReptileState, experience: Experience, generator: torch.Generator
    ) -> tuple[ReptileState, Metrics]:
        batches = experience.batches
        phi = self.actor(state, batches[0].reward.shape[0])
        for batch in batches:
            phi = self.adapt(state, phi, batch)
        way = {
            name: ranks.total(phi[name].mean(0)) / ranks.size() - theta for name, theta in learned(state.meta).items()
        }
        length = torch.stack([piece.square().sum() for piece in way.values()]).sum().sqrt().item()
        if not length < float("inf"):  # false for NaN
            return state, {"train/skipped_updates": 1.0}
        meta = state.meta | {name: state.meta[name] + self.step_size * piece for name, piece in way.items()}
        metrics = {"train/meta_gradient_norm": length} | self.policy.metrics(meta)
        return ReptileState(updated(meta, batches)), metrics
