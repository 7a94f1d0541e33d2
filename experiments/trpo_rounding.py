"""How rounding grows in TRPO's solve: one meta-batch of navigation, its tasks in another order, and in float64.

    python experiments/trpo_rounding.py

Prints, by damping and number of conjugate-gradient iterations, the residual and how far the steps lie apart.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

import metarl
from metarl.algorithms.meta_gradient import MAMLProblem
from metarl.losses.optim import flatten, unflatten
from metarl.losses.policy_gradient import ratio_loss
from metarl.losses.trust_region import conjugate_gradient
from metarl.rollout import rollout
from metarl.runs.snapshot import initial_progress

ORDER = [5, 2, 7, 0, 3, 1, 6, 4]
MAX_KL = 0.01

Product = Callable[[Tensor], Tensor]


def step(gradient: Tensor, product: Product, *, damping: float, iterations: int) -> tuple[Tensor, float]:
    """TRPO's step, and the residual of its solve relative to the gradient."""

    def damped(v: Tensor) -> Tensor:
        return product(v) + damping * v

    x = conjugate_gradient(damped, gradient, iterations=iterations)
    residual = (damped(x) - gradient).norm() / gradient.norm()
    return (2 * MAX_KL / (x @ damped(x))).sqrt() * x, residual.item()


def main() -> None:
    torch.set_num_threads(1)
    experiment = replace(metarl.presets.make("navigation", "maml"), num_tasks=8, num_envs=8, episodes=8)
    experiment = replace(experiment, task=replace(experiment.task, horizon=50))
    learner, progress = experiment.learner, initial_progress(experiment)
    env = experiment.make_env(8, 8, stream="resets")
    env.set_tasks(experiment.task.sample(8, progress.tasks))
    state, meta = progress.learner_state, progress.learner_state.meta
    before, actor = rollout(env, learner.act, learner.explorer(state, 8, progress.updates), 1, progress.actions)
    before = learner.credit(state, before)
    after, _ = rollout(env, learner.act, learner.adapt(state, actor, before), 1, progress.actions)
    batches = [before, learner.credit(state, after)]

    def solve(dtype: torch.dtype = torch.float32, order: list[int] | None = None) -> tuple[Tensor, Product]:
        cast = tree_map(
            lambda x: (x if order is None else x[order]).to(dtype if x.is_floating_point() else x.dtype), batches
        )
        point = {name: value.to(dtype) for name, value in meta.items()}
        problem = MAMLProblem(learner, cast)
        product = problem.curvature(point, 10**6)
        gradient, _ = problem.gradient(point, ratio_loss)
        return flatten(gradient), lambda v: flatten(product(unflatten(v, point)))

    contestants = solve(), solve(order=ORDER), solve(torch.float64)
    for damping in (1e-5, 1e-3, 1e-2, 1e-1):
        for iterations in (3, 5, 10, 20):
            (ours, residual), (reordered, _), (exact, _) = (
                step(*one, damping=damping, iterations=iterations) for one in contestants
            )
            apart, error = ((ours - other).norm() / exact.norm() for other in (reordered, exact))
            print(f"damping {damping:g}, {iterations} iterations: residual {residual:.2g}, ", end="")
            print(f"steps differ by order {apart:.1e}, from float64 {error:.1e}")


if __name__ == "__main__":
    main()
