"""The derivative of adapted policies in the meta-parameters, through the inner steps: what MAML and ProMP share."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.algorithms.gradient import GradientLearner, Loss, adapt
from metarl.envs.api import EnvSpec
from metarl.envs.fields import require
from metarl.losses.advantages import center
from metarl.losses.curvature import fisher_product
from metarl.losses.policy_gradient import Computed, log_likelihood_loss, mean_over
from metarl.types import Description, Params, TrajectoryBatch

LEARNED_RATE = "inner_lr."  # prefix of the learned step sizes among the meta-parameters

SamplingLoss = Callable[[list[Params], list[TrajectoryBatch]], Float[Tensor, ""]]
"""A loss of the policies before each inner step, given them and what they sampled."""


@dataclass(frozen=True)
class MetaGradientLearner(GradientLearner):
    """A learner whose meta-loss is differentiated through its inner steps."""

    learn_inner_lr: bool = False
    """Meta-SGD (Li et al. 2017): learn a step size for each parameter, starting from inner_lr."""
    task_weights: Literal["equal", "inverse_std"] = "equal"
    """Weight of a task in the outer loss: equal, or 1 / the standard deviation of its advantages, as where these are
    divided by the variance; the inner step stays as it is."""
    chunk_samples: int = 25_000
    """Steps of experience differentiated at a time; lower it when memory runs out, raise it on a GPU."""
    compile: bool = False
    """Compile the meta-loss and its gradient: half a minute once, then updates take 10-15 % less time on a CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "chunk_samples", at_least=1)

    def described(self, parts: list[str]) -> Description:
        """By these parts of its name, and whether step sizes are learned."""
        name = " ".join(part for part in [*parts, "learned step sizes" * self.learn_inner_lr] if part)
        found = super().describe()
        return found._replace(name=name, learns_inner_lr=self.learn_inner_lr)

    @property
    def inner_loss(self) -> Loss:
        """What an inner step descends; its gradient is that of the log-likelihood, its Hessian need not be."""
        return log_likelihood_loss

    @property
    def first_order(self) -> bool:
        """Whether the inner gradient is taken for a constant."""
        return False

    def initial_meta(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        """theta, and with ``learn_inner_lr`` a step size for each number that adapts under ``inner_lr.<name>``."""
        weights = self.initial_weights(spec, generator)
        if not self.learn_inner_lr:
            return weights
        theta, rates = super().split(weights)
        return weights | {LEARNED_RATE + name: rate.expand_as(theta[name]).clone() for name, rate in rates.items()}

    def split(self, meta: Params) -> tuple[Params, Params]:
        theta, rates = super().split({name: x for name, x in meta.items() if not name.startswith(LEARNED_RATE)})
        return theta, {name: meta.get(LEARNED_RATE + name, rate) for name, rate in rates.items()}

    def weighted(self, batches: list[TrajectoryBatch]) -> list[TrajectoryBatch]:
        """The batches of every inner step and of the adapted policy, the last one's advantages times its weights."""
        if self.task_weights == "equal":
            return batches
        *before, post = batches
        _, std = center(self.raw_advantage(post)[0], post.valid)
        return [*before, post._replace(advantage=post.advantage * std / (std.square() + 1e-8))]

    def path(self, meta: Params, batches: list[TrajectoryBatch]) -> list[Params]:
        """theta and phi after an inner step on each batch of one task, as differentiable functions of ``meta``."""
        theta, inner_lr = self.split(meta)
        path = [theta]
        for batch in batches:
            path.append(adapt(self.policy, path[-1], batch, inner_lr, self.inner_loss, first_order=self.first_order))
        return path

    def adapted(self, meta: Params, batches: list[TrajectoryBatch]) -> Params:
        """phi after an inner step on each batch of one task."""
        return self.path(meta, batches)[-1]


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compiled once for a process, and again for each new shape, loss or set of hyperparameters."""
    return torch.compile(function, dynamic=False)


def loss_of_tasks(problem: "MAMLProblem", meta: Params, chunk: list[TrajectoryBatch], loss: Loss) -> Float[Tensor, ""]:
    """The meta-loss, summed over the tasks of a chunk."""
    return vmap(lambda batches: problem.loss_and_dist(meta, batches, loss)[0])(chunk).sum()


class MAMLProblem:
    """:class:`metarl.algorithms.outer.MetaProblem` of MAML: all tasks at once, in chunks that bound the memory."""

    def __init__(
        self,
        learner: MetaGradientLearner,
        batches: list[TrajectoryBatch],
        sampling_loss: SamplingLoss | None = None,
    ) -> None:
        self._learner, self._batches, self._sampling_loss = learner, batches, sampling_loss
        self._num_tasks = batches[0].reward.shape[0]
        self._all_tasks = self._num_tasks * ranks.size()

    def gradient(self, meta: Params, loss: Loss) -> tuple[Params, float]:
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
        total = {name: torch.zeros_like(value) for name, value in meta.items()}
        loss_sum = 0.0
        for chunk in self._chunks():
            value = (compiled(loss_of_tasks) if self._learner.compile else loss_of_tasks)(self, leaves, chunk, loss)
            gradient = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
            for name, piece in zip(leaves, gradient, strict=True):
                total[name] += piece / self._all_tasks
            loss_sum += value.item()
        loss_sum = sum(ranks.everyone(loss_sum))
        return ranks.total_params(total), loss_sum / self._all_tasks

    def evaluate(self, meta: Params, loss: Loss) -> tuple[float, float]:
        def loss_and_kl(batches: list[TrajectoryBatch]) -> Float[Tensor, " 2"]:
            value, dist = self.loss_and_dist(meta, batches, loss)
            return torch.stack([value, mean_over(batches[-1].dist.kl(dist), batches[-1].valid)])

        loss_value, kl = self.mean_over_tasks(loss_and_kl).tolist()
        return loss_value, kl

    @torch.no_grad()
    def mean_over_tasks(self, function: Callable[[list[TrajectoryBatch]], Tensor]) -> Tensor:
        own = torch.stack([vmap(function)(chunk).sum(0) for chunk in self._chunks()]).sum(0)
        return ranks.total(own) / self._all_tasks

    def curvature(self, meta: Params, num_samples: int) -> Callable[[Params], Params]:
        """The KL is taken from the subsample's own adapted policies, so that its gradient is zero at ``meta`` and its
        Hessian is the Fisher matrix carried through the adaptation, hence positive semidefinite.
        """
        batches, share = self._subsample(num_samples)
        if share == 0:  # other ranks have the whole subsample
            return lambda v: ranks.total_params({name: torch.zeros_like(value) for name, value in meta.items()})
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}

        def adapted_dist(batches: list[TrajectoryBatch]) -> Any:
            return self._learner.policy(self._learner.adapted(leaves, batches[:-1]), batches[-1].obs)

        of_list = fisher_product(vmap(adapted_dist)(batches), batches[-1].valid, list(leaves.values()))

        def product(v: Params) -> Params:
            image = of_list([v[name] for name in leaves])
            image = image if share == 1 else tuple(piece * share for piece in image)
            return ranks.total_params(dict(zip(leaves, image, strict=True)))

        return product

    def loss_and_dist(self, meta: Params, batches: list[TrajectoryBatch], loss: Loss) -> tuple[Float[Tensor, ""], Any]:
        """Of one task: the loss of its adapted policy and of the policies that sampled before; and the distribution
        of the adapted one's actions."""
        *before, phi = self._learner.path(meta, batches[:-1])
        dist = self._learner.policy(phi, batches[-1].obs)
        value = loss(Computed(dist), phi, batches[-1])
        if self._sampling_loss is not None:
            value = value + self._sampling_loss(before, batches[:-1])
        return value, dist

    def _chunks(self) -> Iterator[list[TrajectoryBatch]]:
        samples_per_task = sum(batch.reward[0].numel() for batch in self._batches)
        size = max(1, self._learner.chunk_samples // samples_per_task)
        for start in range(0, self._num_tasks, size):
            yield tree_map(lambda x: x[start : start + size], self._batches)  # noqa: B023

    def _subsample(self, num_samples: int) -> tuple[list[TrajectoryBatch], float]:
        """The first worlds of tasks far apart, at least 8 of 8: tasks of one kind may lie side by side. Those of this
        rank, and which share of all they are."""
        reward = self._batches[-1].reward
        _, num_envs, num_steps = reward.shape
        envs = min(num_envs, max(8, num_samples // (self._all_tasks * num_steps)))
        tasks = min(self._all_tasks, max(8, num_samples // (envs * num_steps)))
        chosen = torch.arange(tasks, device=reward.device) * self._all_tasks // tasks
        if ranks.size() > 1:
            chosen = chosen - ranks.rank() * self._num_tasks
            chosen = chosen[(chosen >= 0) & (chosen < self._num_tasks)]
        return tree_map(lambda x: x[chosen, :envs], self._batches), len(chosen) / tasks
