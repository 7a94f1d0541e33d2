"""An algorithm of one's own, complete in this file: ANIL (Raghu et al. 2020, "Rapid learning or feature reuse?").

Almost no inner loop: the inner steps move the last layer of the policy alone, on features that the outer step learns
for all tasks. This is its first-order form: the meta-gradient is the adapted policy's own, taken where it stands.

    metarl train navigation --learner anil --code experiments/own_algorithm.py --name anil
    metarl train bandit --learner anil --code experiments/own_algorithm.py
    metarl evaluate runs/anil --code experiments/own_algorithm.py
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from metarl import MLP, Experiment, GradientLearner, envs, presets, register
from metarl.envs import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.losses.optim import OptimizerState, adam_step, flatten
from metarl.losses.policy_gradient import clipped_ratio_loss
from metarl.networks.normalize import updated
from metarl.types import Experience, Metrics, Params, TrajectoryBatch


class ANILState(NamedTuple):
    meta: Params
    optimizer: OptimizerState


@register
@dataclass(frozen=True)
class ANIL(GradientLearner):
    """Of :class:`GradientLearner` it keeps how policies act, are credited and take inner steps."""

    policy: MLP = field(default_factory=MLP)
    learning_rate: float = 3e-3
    """Adam's step size."""
    epochs: int = 5
    """Gradient steps on the same meta-batch."""
    clip: float = 0.2
    """PPO clip range epsilon of the adapted policies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "learning_rate", "epochs", "clip", above=0)
        if not isinstance(self.policy, MLP) or self.policy.context_size:
            raise BadField(f"policy is {self.policy}: ANIL adapts the last layer of an MLP without context")

    def init(self, spec: EnvSpec, generator: torch.Generator) -> ANILState:
        return ANILState(self.initial_weights(spec, generator), {})

    def split(self, meta: Params) -> tuple[Params, Params]:
        """theta, and the step size of what adapts."""
        theta, rates = super().split(meta)
        last = len(self.policy.hidden_sizes)
        return theta, {name: rates[name] for name in (f"weight_{last}", f"bias_{last}")}

    def update(self, state: ANILState, experience: Experience, generator: torch.Generator) -> tuple[ANILState, Metrics]:
        *inner, post = experience.batches
        meta, optimizer, metrics = state.meta, state.optimizer, Metrics()

        def loss(phi: Params, batch: TrajectoryBatch) -> Tensor:  # of one task
            return clipped_ratio_loss(self.policy, phi, batch, self.clip)

        for _ in range(self.epochs):
            now = ANILState(meta, optimizer)
            phi = self.actor(now, num_tasks=len(post.reward))
            for batch in inner:
                phi = self.adapt(now, phi, batch)
            by_task, losses = vmap(grad_and_value(loss))(phi, post)  # first order: d phi / d theta taken for 1
            gradient = {name: by_task[name].mean(0) for name in meta}
            norm = flatten(gradient).norm()
            if not norm.isfinite():
                return state, {"train/skipped_updates": 1.0}
            metrics = {"train/loss": losses.mean().item(), "train/meta_gradient_norm": norm.item()}
            meta, optimizer = adam_step(meta, gradient, optimizer, self.learning_rate)
        return ANILState(updated(meta, experience.batches), optimizer), metrics | self.policy.metrics(meta)


presets.add(
    {
        "corner": Experiment(
            task=envs.find_preset("navigation", "corner"),
            learner=ANIL(policy=MLP((64, 64)), adapt_steps=3),
            iterations=100,
        )
    }
)
