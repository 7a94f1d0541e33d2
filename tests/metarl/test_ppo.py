"""Epochs of gradient steps: a loop by hand, what a step that is not finite leaves, and shares of tasks."""

from collections.abc import Iterator

import pytest
import torch
from maml_checks import meta_batch
from torch import Tensor
from update_checks import meta_update

from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.losses.ppo import Slope, descend, shares
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.rollout import rollout
from metarl.types import Params

pytestmark = pytest.mark.usefixtures("one_thread")
TARGETS = torch.tensor([[3.0, -1.0], [0.5, 2.0]])


def slopes(leaves: Params) -> Iterator[Slope]:
    """Of the distance to two targets in turn; ``idle`` has no part in it."""
    for target in TARGETS:
        loss = (leaves["x"] - target).square().sum()
        (gradient,) = torch.autograd.grad(loss, [leaves["x"]])
        yield Slope({"x": gradient, "idle": None}, {"loss": loss.item()})


def by_hand(x: Tensor, epochs: int, rate: float, longest: float) -> Tensor:
    """Adam by its definition (Kingma & Ba 2015, algorithm 1), on gradients shortened to ``longest``."""
    x, mean, square, t = x.double(), torch.zeros(2).double(), torch.zeros(2).double(), 0
    for _ in range(epochs):
        for target in TARGETS.double():
            gradient, t = 2 * (x - target), t + 1
            gradient = gradient * min(1.0, longest / gradient.norm().item())
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient.square()
            x = x - rate * (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
    return x


def test_it_is_adam_on_shortened_gradients_and_goes_on_from_its_moments() -> None:
    params = {"x": torch.tensor([0.3, 0.1]), "idle": torch.ones(3)}
    start = {name: value.clone() for name, value in params.items()}
    found = descend(params, {}, slopes, epochs=3, learning_rate=0.05, max_grad_norm=4.0)
    assert found is not None
    torch.testing.assert_close(found.params["x"], by_hand(start["x"], 3, 0.05, 4.0).float())
    again = descend(found.params, found.optimizer, slopes, epochs=2, learning_rate=0.05, max_grad_norm=4.0)
    assert again is not None
    torch.testing.assert_close(again.params["x"], by_hand(start["x"], 5, 0.05, 4.0).float())
    assert all(torch.equal(params[name], value) for name, value in start.items())
    assert torch.equal(again.params["idle"], start["idle"])
    losses = [step["loss"] for step in found.metrics]
    assert len(losses) == 6
    assert found.means()["loss"] == pytest.approx(sum(losses) / 6)


def test_a_slope_that_is_not_finite_gives_nothing() -> None:
    def broken(leaves: Params) -> Iterator[Slope]:
        yield from slopes(leaves)
        yield Slope({"x": torch.tensor([1.0, torch.inf])}, {})

    params = {"x": torch.zeros(2)}
    assert descend(params, {}, broken, epochs=1, learning_rate=0.1) is None
    assert torch.equal(params["x"], torch.zeros(2))


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_shares_have_every_task_once_and_drawn_ones_differ_from_pass_to_pass(count: int) -> None:
    _, (batch, *_) = meta_batch(MAML(policy=GaussianMLP((3,), "tanh")), num_tasks=5)
    batch = batch._replace(reward=torch.arange(5.0)[:, None, None].expand_as(batch.reward))
    draws = torch.Generator().manual_seed(0)

    def tasks(generator: torch.Generator | None) -> list[list[float]]:
        return [share.reward[:, 0, 0].tolist() for share in shares(batch, count, generator)]

    strided, first, second = tasks(None), tasks(draws), tasks(draws)
    for found in (strided, first, second):
        assert len(found) == min(count, 5)
        assert sorted(task for share in found for task in share) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert strided[0] == [0.0, 1.0, 2.0, 3.0, 4.0][::count]
    assert first == tasks(torch.Generator().manual_seed(0))
    assert first != second


def test_rl2_draws_its_minibatches_where_it_is_asked_to() -> None:
    """Other shares, another end; the same seed, the same end; strided ones take no draw."""
    tasks = TabularMDP(states=3, actions=2, horizon=3)
    env = tasks.make(6, 1, seed=0)
    env.set_tasks(tasks.sample(6, torch.Generator().manual_seed(0)))
    ends = {}
    for order, seed in (("strided", 0), ("strided", 1), ("drawn", 0), ("drawn", 0), ("drawn", 1)):
        learner = RL2(RecurrentPolicy(memory_size=4), epochs=2, minibatches=3, minibatch_order=order)  # type: ignore[arg-type]
        state = learner.init(tasks.spec, torch.Generator().manual_seed(0))
        if not ends:
            sampled, _ = rollout(env, learner.act, learner.actor(state, 6), 2, torch.Generator().manual_seed(1))
        after, _ = meta_update(learner, state, [learner.credit(state, sampled)], seed=seed)
        weights = torch.cat([value.flatten() for value in after.meta.values()])
        if (order, seed) in ends:
            assert torch.equal(ends[order, seed], weights)
        ends[order, seed] = weights
    assert torch.equal(ends["strided", 0], ends["strided", 1])
    assert not torch.equal(ends["drawn", 0], ends["drawn", 1])
    assert not torch.equal(ends["drawn", 0], ends["strided", 0])
