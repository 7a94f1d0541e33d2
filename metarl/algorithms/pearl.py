"""PEARL: off-policy meta-reinforcement learning by probabilistic context variables (Rakelly et al. 2019).

A task is what a latent variable z says it is. An encoder makes of each transition c_n a Gaussian factor, and

    q(z | c_1 ... c_N) ∝ prod_n N(mu(c_n), sigma²(c_n))        (section 4.1; the order of a context cannot matter)

is what a context says of z. Policy and critics of a soft actor-critic see z beside the observation. In a new task an
episode acts as if a z drawn from the prior N(0, 1) were true; an inner step (:meth:`PEARL.adapt`) takes no gradient, it
multiplies the new factors into the posterior, and the episodes after it draw from that: posterior sampling.

A meta-update is algorithm 1 from line 8 on: transitions go to the replay of their task, then gradient steps, each on
tasks drawn from there, with a context from what a task's newest visit brought, and other transitions for the critics.
The critics' gradient and KL(q || N(0, 1)) train the encoder. As in the authors' code (katerakelly/oyster) rewards are
scaled, and the KL is summed over tasks where other losses are means. Other than there, critics bootstrap from slow
copies of themselves in place of a value network; one step of Adam moves all networks at once; a factor's variance is
softplus times ``context_size``, so that a context that says nothing leaves the untrained posterior about as wide as the
prior, where theirs is a tenth as wide; and where a task distribution has endless tasks, training meets new ones all the
time, of which the replay keeps the newest.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from metarl import ranks
from metarl.algorithms import task_replay
from metarl.algorithms.soft import SoftLearner, Terms
from metarl.algorithms.task_replay import Slots, Transition
from metarl.envs.api import EnvSpec, drawn
from metarl.envs.fields import BadField, require
from metarl.losses.optim import OptimizerState
from metarl.networks.distributions import TanhGaussian
from metarl.networks.layers import dense, dense_params
from metarl.networks.mlp import MOST_UNITS, require_layers
from metarl.replay import Replay
from metarl.types import Description, Experience, Metrics, Params, Previous, Stage, TrajectoryBatch, inner_stages

LEAST_VARIANCE = 1e-7  # of a factor, as in oyster


class Posterior(NamedTuple):
    """A product of Gaussian factors by its natural parameters, which add; without any factor it is the prior."""

    precision: Float[Tensor, "*task latent"]
    weighted_mean: Float[Tensor, "*task latent"]
    """Precision times mean."""

    @property
    def mean(self) -> Float[Tensor, "*task latent"]:
        return self.weighted_mean * self.variance

    @property
    def variance(self) -> Float[Tensor, "*task latent"]:
        return torch.where(self.precision > 0, self.precision, 1.0).reciprocal()

    def kl_from_prior(self) -> Float[Tensor, "*task"]:
        """KL(q || N(0, 1)), summed over the dimensions of z."""
        return 0.5 * (self.variance + self.mean.square() - 1 - self.variance.log()).sum(-1)


class PEARLState(NamedTuple):
    meta: Params
    """Weights of policy, critics and encoder, and the log temperature where it is learned."""
    optimizer: OptimizerState
    slow: Params
    """The critics' slow copies."""
    replay: Replay
    """Transitions by task."""
    slots: Slots
    """Which tasks these are."""
    num_updates: int


class PEARLActor(NamedTuple):
    params: Params
    posterior: Posterior
    """[task latent]."""
    latent: Float[Tensor, "task env latent"] | None
    """z of the present episode of each world; None before the first step."""


@dataclass(frozen=True)
class PEARL(SoftLearner):
    latent_size: int = 5
    """Numbers of the latent variable; 0: no encoder, soft actor-critic on all tasks jointly."""
    adapt_steps: int = 1
    """Rounds of experience that the posterior takes up, each of episodes that draw from the one before."""
    encoder_sizes: tuple[int, ...] = (200, 200, 200)
    """Units of each hidden layer of the encoder."""
    encode_next_obs: bool = False
    """Show the encoder where a transition led, for tasks that differ in their dynamics."""
    context: Literal["prior", "all"] = "prior"
    """What training infers a task from: its newest experience before any inner step, or all of its newest visit."""
    context_size: int = 64
    """Transitions of a context in training; in tests it is all there is."""
    kl_weight: float = 0.1
    """Weight of KL(q || N(0, 1)), the information bottleneck."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layers("encoder_sizes", self.encoder_sizes)
        require(self, "latent_size", at_least=0, at_most=MOST_UNITS)
        require(self, "adapt_steps", at_least=0, at_most=1000)
        require(self, "context_size", at_least=1)
        require(self, "kl_weight", at_least=0)
        if self.adapt_steps and not self.latent_size:
            raise BadField(f"adapt_steps is {self.adapt_steps}: use 0 with latent_size 0, where there is no posterior")

    def stages(self, trial: int, *, steps: int | None = None, later: float = 1.0) -> list[Stage]:
        return inner_stages(max(1, self.adapt_steps) if steps is None else steps, 1.0)

    def describe(self) -> Description:
        return Description("PEARL" if self.latent_size else "SAC on all tasks")

    def without_adaptation(self) -> "PEARL":
        """Soft actor-critic on all tasks jointly: the same networks and replay, without z."""
        return replace(self, latent_size=0, adapt_steps=0)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> PEARLState:
        if ranks.size() > 1:
            raise BadField(f"{ranks.size()} processes share this run: PEARL runs in one, start it without torchrun")
        self.require_fits(spec)
        meta, slow = self.initial_weights(spec.obs_dim + self.latent_size, spec.action_dim, generator)
        if self.latent_size:
            seen = spec.obs_dim * (2 if self.encode_next_obs else 1) + spec.action_dim + 1
            meta |= dense_params("encoder", (seen, *self.encoder_sizes, 2 * self.latent_size), generator)
        replay, slots = task_replay.empty(spec, self.num_slots, self.capacity, generator.device)
        return PEARLState(meta, {}, slow, replay, slots, 0)

    def actor(self, state: PEARLState, num_tasks: int) -> PEARLActor:
        """What acts before any experience of the task: the posterior is the prior, of no numbers where networks were
        trained without z (the comparison without adaptation)."""
        like = next(iter(state.meta.values()))
        nothing = like.new_zeros(num_tasks, self.latent_size if "encoder/weight_0" in state.meta else 0)
        return PEARLActor(state.meta, Posterior(nothing, nothing), None)

    def explorer(self, state: PEARLState, num_tasks: int, generator: torch.Generator) -> PEARLActor:
        return self.actor(state, num_tasks)

    def beginning(self, actor: PEARLActor, previous: Previous) -> tuple[PEARLActor, Previous]:
        """For an exported policy, which draws nothing: in every episode z is the posterior's mean."""
        return actor._replace(latent=actor.posterior.mean.unsqueeze(1)), previous

    @torch.no_grad()
    def act(
        self, actor: PEARLActor, obs: Float[Tensor, "task env obs"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env act"], TanhGaussian, PEARLActor]:
        """Of a policy that sees z, which every episode draws anew."""
        latent_size = actor.posterior.mean.shape[1]
        if not latent_size:
            dist = self.networks.policy(actor.params, obs)
            return dist.sample(generator), dist, actor
        noise = drawn(torch.randn, (*obs.shape[:2], latent_size), generator)
        latent = actor.posterior.mean.unsqueeze(1) + actor.posterior.variance.sqrt().unsqueeze(1) * noise
        if actor.latent is not None and actor.latent.shape == latent.shape:
            begins = (previous.terminated | previous.truncated).unsqueeze(-1)
            latent = torch.where(begins, latent, actor.latent)
        dist = self.networks.policy(actor.params, torch.cat([obs, latent], dim=-1))
        return dist.sample(generator), dist, actor._replace(latent=latent)

    def credit(self, state: PEARLState, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Nothing: the critics say what a transition is worth whenever they see it."""
        return batch

    @torch.no_grad()
    def adapt(self, state: PEARLState, actor: PEARLActor, batch: TrajectoryBatch, *, scale: float = 1.0) -> PEARLActor:
        """The posterior with the factors of all valid transitions multiplied in, each to the power ``scale``."""
        if not actor.posterior.mean.shape[1]:
            return actor
        context = Transition(*(x.flatten(1, 2) for x in task_replay.transitions(batch)))
        new = self.infer(state.meta, context, scale * batch.valid.flatten(1))
        added = Posterior(*(old + more for old, more in zip(actor.posterior, new, strict=True)))
        return PEARLActor(actor.params, added, None)

    def infer(self, params: Params, context: Transition, weight: Float[Tensor, "task n"] | None = None) -> Posterior:
        """q(z | c) of a context [task n ...]: the product of its factors, each to the power of its weight."""
        seen = [context.obs, context.action, context.reward.unsqueeze(-1)]
        seen += [context.next_obs] if self.encode_next_obs else []
        mean, raw = dense(params, "encoder", torch.cat(seen, dim=-1)).chunk(2, dim=-1)
        precision = (self.context_size * softplus(raw)).clamp(min=LEAST_VARIANCE).reciprocal()
        if weight is not None:
            precision = precision * weight.unsqueeze(-1)
        return Posterior(precision.sum(-2), (precision * mean).sum(-2))

    def update(
        self, state: PEARLState, experience: Experience, generator: torch.Generator
    ) -> tuple[PEARLState, Metrics]:
        """New transitions to the replay of their tasks, then gradient steps on what is drawn from it."""
        inferring = len(experience.batches) if self.context == "all" else 1
        replay, slots = task_replay.remember(
            state.replay,
            state.slots,
            experience.task,
            experience.batches,
            inferring=inferring,
            update=state.num_updates + 1,
        )
        state = state._replace(replay=replay, slots=slots, num_updates=state.num_updates + 1)
        held = replay.live()
        metrics = {"train/replay_tasks": float((held > 0).sum()), "train/replay_transitions": float(held.sum())}
        if held.sum() < self.warmup_steps:
            return state, metrics
        found = self.descend(
            state.meta,
            state.optimizer,
            state.slow,
            lambda params, slow: self.loss(params, slow, replay, slots, generator),
        )
        if found is None:
            return state, metrics | {"train/skipped_updates": 1.0}
        state = state._replace(meta=found.meta, optimizer=found.optimizer, slow=found.slow)
        return state, metrics | found.metrics

    def loss(
        self, params: Params, slow: Params, replay: Replay, slots: Slots, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Terms]:
        """What one gradient step descends, on tasks, contexts and transitions that it draws; and its terms."""
        slot = task_replay.draw_slots(slots, self.meta_batch, generator)
        steps, task = Transition(**replay.sample(slot, self.batch_size, generator)), slots.parameters()[slot]
        noise = torch.randn(2, *steps.action.shape, generator=generator, device=slot.device)
        if not self.latent_size:
            return self.actor_critic_loss(params, slow, self.transitions(steps, None, task), noise)
        context = replay.sample(slot, self.context_size, generator, newest=slots.recent[slot])
        posterior = self.infer(params, Transition(**context))
        of_latent = torch.randn(posterior.mean.shape, generator=generator, device=slot.device)
        latent = posterior.mean + posterior.variance.sqrt() * of_latent
        divergence = posterior.kl_from_prior()
        loss, terms = self.actor_critic_loss(params, slow, self.transitions(steps, latent, task), noise)
        terms |= {"kl_from_prior": divergence.mean(), "posterior_std": posterior.variance.sqrt().mean()}
        return loss + self.kl_weight * divergence.sum(), terms
