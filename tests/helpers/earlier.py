"""How things were computed before they were made faster: oracles for tests, contestants of ``make bench``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metarl.algorithms.gradient import Loss
from metarl.algorithms.maml import MAML
from metarl.algorithms.meta_gradient import MAMLProblem
from metarl.losses.policy_gradient import mean_kl, mean_over
from metarl.types import Params, TrajectoryBatch


class EarlierProblem(MAMLProblem):
    """The curvature as the derivative of the KL's gradient, loss and KL each with a forward pass of its own."""

    def curvature(self, meta: Params, num_samples: int) -> Callable[[Params], Params]:
        batches, _ = self._subsample(num_samples)
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}

        def divergence(batches: list[TrajectoryBatch]) -> Tensor:
            dist: Any = self._learner.policy(self._learner.adapted(leaves, batches[:-1]), batches[-1].obs)
            return mean_over(tree_map(Tensor.detach, dist).kl(dist), batches[-1].valid)

        kl = vmap(divergence)(batches).mean()
        gradient = torch.autograd.grad(kl, list(leaves.values()), create_graph=True, materialize_grads=True)

        def product(v: Params) -> Params:
            along = torch.stack([(g * v[name]).sum() for name, g in zip(leaves, gradient, strict=True)]).sum()
            image = torch.autograd.grad(along, list(leaves.values()), retain_graph=True, materialize_grads=True)
            return dict(zip(leaves, image, strict=True))

        return product

    def evaluate(self, meta: Params, loss: Loss) -> tuple[float, float]:
        def loss_and_kl(batches: list[TrajectoryBatch]) -> Tensor:
            phi = self._learner.adapted(meta, batches[:-1])
            value = loss(self._learner.policy, phi, batches[-1])
            return torch.stack([value, mean_kl(self._learner.policy, phi, batches[-1])])

        loss_value, kl = self.mean_over_tasks(loss_and_kl).tolist()
        return loss_value, kl


class EarlierMAML(MAML):
    def problem(self, batches: list[TrajectoryBatch]) -> MAMLProblem:
        return EarlierProblem(self, batches)
