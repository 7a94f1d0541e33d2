"""Few-shot learners of gradients against closed forms: on linear regression, every inner step is linear."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.algorithms.meta_gradient import LEARNED_RATE
from metarl.fewshot import Digits, FewShotMAML, FewShotReptile, FineTuned, MetaNetworks, Sinusoid
from metarl.fewshot.episodes import Episodes, Examples, ExampleSpec
from metarl.fewshot.learner import LearnerState
from metarl.networks.predictors import HEAD, MLP, ConvNet
from metarl.types import Params

pytestmark = pytest.mark.usefixtures("one_thread", "float64")

SPEC = ExampleSpec(obs_dim=3, action_dim=1, horizon=1, terminates=False, has_success=False, shape=(3,))
LINEAR = MLP(())
NUM_TASKS, ALPHA = 4, 0.07


def regression(*, seed: int = 0) -> Episodes:
    """Five support and six query examples of each task, of unrelated labels."""
    generator = torch.Generator().manual_seed(seed)

    def examples(n: int) -> Examples:
        return Examples(
            torch.randn(NUM_TASKS, n, 3, generator=generator), torch.randn(NUM_TASKS, n, 1, generator=generator)
        )

    return Episodes(examples(5), examples(6), torch.zeros(NUM_TASKS, 0, dtype=torch.int64), SPEC)


def start() -> Params:
    generator = torch.Generator().manual_seed(7)
    return {"weight_head": torch.randn(3, 1, generator=generator), "bias_head": torch.randn(1, generator=generator)}


def vector(params: Params) -> Tensor:
    return torch.cat([params["weight_head"].flatten(), params["bias_head"].flatten()])


def design(examples: Examples, task: int) -> tuple[Tensor, Tensor]:
    """[x, 1] of every example, and the targets."""
    x = examples.x[task]
    return torch.cat([x, torch.ones(len(x), 1)], dim=1), examples.y[task].squeeze(1)


def slope(a: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Of the mean squared error."""
    return 2 / len(a) * a.T @ (a @ w - y)


def hessian(a: Tensor) -> Tensor:
    return 2 / len(a) * a.T @ a


def meta_gradient(learner: FewShotMAML, meta: Params, episodes: Episodes) -> Params:
    leaves = {name: value.clone().requires_grad_() for name, value in meta.items()}
    pieces = torch.autograd.grad(learner.meta_loss(leaves, episodes), list(leaves.values()))
    return dict(zip(leaves, pieces, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_of_linear_regression(steps: int, first_order: bool) -> None:
    """phi = w - alpha g(w) k times; d phi / d w = (I - alpha H)^k, of which FOMAML knows the identity alone."""
    episodes, meta = regression(), start()
    learner = FewShotMAML(LINEAR, adapt_steps=steps, inner_lr=ALPHA, first_order=first_order)
    expected = torch.zeros(4)
    for task in range(NUM_TASKS):
        (a, y), (b, z), w = design(episodes.support, task), design(episodes.query, task), vector(meta)
        for _ in range(steps):
            w = w - ALPHA * slope(a, y, w)
        through = torch.linalg.matrix_power(torch.eye(4) - ALPHA * hessian(a), steps)
        expected += (slope(b, z, w) if first_order else through @ slope(b, z, w)) / NUM_TASKS
    found = vector(meta_gradient(learner, meta, episodes))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    other = vector(meta_gradient(replace(learner, first_order=not first_order), meta, episodes))
    assert (found - other).norm() > 0.05 * found.norm(), "the two orders do not differ here"


def test_the_gradient_in_learned_step_sizes() -> None:
    """Meta-SGD: phi_i = w_i - alpha_i g_i, so that the derivative in alpha_i is -g_i(w) q_i(phi)."""
    episodes, theta = regression(), start()
    rates = {LEARNED_RATE + name: 0.02 + 0.1 * torch.rand_like(value) for name, value in theta.items()}
    found = meta_gradient(FewShotMAML(LINEAR, learn_inner_lr=True), theta | rates, episodes)
    alpha, expected = vector({name: rates[LEARNED_RATE + name] for name in theta}), torch.zeros(4)
    for task in range(NUM_TASKS):
        (a, y), (b, z) = design(episodes.support, task), design(episodes.query, task)
        g = slope(a, y, vector(theta))
        expected -= g * slope(b, z, vector(theta) - alpha * g) / NUM_TASKS
    of_rates = vector({name: found[LEARNED_RATE + name] for name in theta})
    torch.testing.assert_close(of_rates, expected, rtol=1e-12, atol=1e-14)


def test_reptile_moves_towards_where_gradient_descent_on_linear_regression_gets() -> None:
    """phi_k = w* + (I - alpha H)^k (w - w*), with w* the least-squares solution of all examples of the task."""
    episodes, meta, steps = regression(), start(), 6
    learner = FewShotReptile(LINEAR, inner_lr=ALPHA, train_steps=steps, minibatch=11, step_size=0.3)
    after, metrics = learner.update(LearnerState(meta, {}), episodes, torch.Generator())
    phi = torch.zeros(4)
    for task in range(NUM_TASKS):
        parts = [design(examples, task) for examples in (episodes.support, episodes.query)]
        a, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        best = torch.linalg.lstsq(a, y.unsqueeze(1)).solution.squeeze(1)
        through = torch.linalg.matrix_power(torch.eye(4) - ALPHA * hessian(a), steps)
        phi += (best + through @ (vector(meta) - best)) / NUM_TASKS
    expected = vector(meta) + 0.3 * (phi - vector(meta))
    torch.testing.assert_close(vector(after.meta), expected, rtol=1e-10, atol=1e-12)
    assert metrics["train/meta_gradient_norm"] == pytest.approx((phi - vector(meta)).norm().item())


def test_reptiles_minibatches_follow_each_other() -> None:
    episodes, meta = regression(), start()
    learner = FewShotReptile(LINEAR, inner_lr=ALPHA, train_steps=3, minibatch=4, step_size=1.0)
    after, _ = learner.update(LearnerState(meta, {}), episodes, torch.Generator())
    phi = torch.zeros(4)
    for task in range(NUM_TASKS):
        parts = [design(examples, task) for examples in (episodes.support, episodes.query)]
        a, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        w = vector(meta)
        for chosen in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 0]):
            w = w - ALPHA * slope(a[chosen], y[chosen], w)
        phi += w / NUM_TASKS
    torch.testing.assert_close(vector(after.meta), phi, rtol=1e-12, atol=1e-14)


def test_only_the_last_layer_of_anil_adapts_and_all_of_it_learns() -> None:
    learner = FewShotMAML(MLP((5,), "tanh"), adapt_steps=2, head_only=True)
    state, episodes = learner.init(SPEC, torch.Generator().manual_seed(0)), regression()
    theta, rates = learner.split(state.meta)
    *_, phi = learner.steps(theta, rates, episodes.support, [1.0, 1.0], SPEC)
    moved = {name for name in theta if not torch.equal(phi[name][0], theta[name])}
    assert moved == set(HEAD)
    gradient = meta_gradient(learner, state.meta, episodes)
    assert all(piece.norm() > 1e-3 for piece in gradient.values())


@pytest.mark.parametrize(
    "learner",
    [
        FewShotMAML(MLP((6,)), adapt_steps=2),
        FewShotMAML(ConvNet(filters=3, blocks=2), adapt_steps=2),
        FineTuned(MLP((6,)), adapt_steps=2, inner_lr=0.3),
        MetaNetworks(MLP((6, 6))),
    ],
    ids=lambda learner: f"{learner.called} {type(learner.network).__name__}",
)
def test_tasks_side_by_side_are_as_each_by_itself(learner: FewShotMAML) -> None:
    tasks = Digits(ways=3, shots=2, queries=2)
    state = learner.init(tasks.spec, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    episodes = tasks.draw(tasks.sample(3, generator), generator)
    together = learner.predictions(state, episodes, [1.0, 0.5])
    for k in range(3):
        one = Episodes(*tree_map(lambda x: x[k : k + 1], tuple(episodes[:3])), tasks.spec)  # noqa: B023
        for all_tasks, alone in zip(together, learner.predictions(state, one, [1.0, 0.5]), strict=True):
            torch.testing.assert_close(all_tasks[k], alone[0])
    if learner.adapt_steps:
        before, once, twice = together
        assert not torch.equal(before, once)
        assert not torch.equal(once, twice)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    learner = FewShotMAML(MLP((4,)))
    state, episodes = learner.init(SPEC, torch.Generator().manual_seed(0)), regression()
    episodes.query.y[0, 0] = torch.inf
    after, metrics = learner.update(state, episodes, torch.Generator())
    assert after is state
    assert metrics == {"train/skipped_updates": 1.0}


def test_pretraining_is_the_gradient_of_all_examples_at_once() -> None:
    """Adam's first step goes by the learning rate along the sign of the gradient."""
    tasks, learner = Sinusoid(), FineTuned(MLP((4,), "tanh"), learning_rate=1e-3)
    state = learner.init(tasks.spec, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    episodes = tasks.draw(tasks.sample(3, generator), generator)
    after, _ = learner.update(state, episodes, torch.Generator())
    leaves = {name: value.clone().requires_grad_() for name, value in state.meta.items()}
    x = torch.cat([episodes.support.x, episodes.query.x], dim=1).flatten(0, 1)
    y = torch.cat([episodes.support.y, episodes.query.y], dim=1).flatten(0, 1)
    (learner.network(leaves, x) - y).square().mean().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        torch.testing.assert_close(after.meta[name], leaf.detach() - 1e-3 * leaf.grad.sign(), rtol=0, atol=1e-7)
