"""One run in several processes is the run of one: same tasks, same update, up to the order of sums."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from maml_checks import meta_batch
from torch import Tensor
from torch.utils._pytree import tree_map
from update_checks import meta_update

from metarl import ranks
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO, Gradient
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import find_preset
from metarl.losses.optim import flatten
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline
from metarl.rollout import rollout
from metarl.runs.continuing import require_shares
from metarl.runs.experiment import Experiment

pytestmark = pytest.mark.usefixtures("one_thread")


class Threads:
    """:class:`metarl.ranks.Group` of threads of this process: what is collective meets at a barrier."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, shelf: list[Any]) -> None:
        self.rank, self.size, self._barrier, self._shelf = rank, size, barrier, shelf

    def everyone(self, value: Any) -> list[Any]:
        self._shelf[self.rank] = value
        self._barrier.wait(60)
        found = list(self._shelf)
        self._barrier.wait(60)
        return found

    def total(self, x: Tensor) -> Tensor:
        return torch.stack(self.everyone(x.detach().clone())).sum(0)


def on_ranks(size: int, work: Callable[[], Any]) -> list[Any]:
    """What ``work`` returns on each of so many ranks."""
    barrier, shelf, found = threading.Barrier(size), [None] * size, [None] * size
    failures: list[BaseException] = []

    def run(rank: int) -> None:
        with ranks.within(Threads(rank, size, barrier, shelf)):
            try:
                found[rank] = work()
            except BaseException as error:
                failures.append(error)
                barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return found


def own(batches: list[Any]) -> list[Any]:
    return tree_map(ranks.own, batches)


SMALL = GaussianMLP((3, 3), "tanh")
LEARNERS = {
    "ppo": MAML(policy=SMALL, outer=PPO(learning_rate=3e-3)),
    "gradient": MAML(policy=SMALL, outer=Gradient()),
    "trpo": MAML(policy=SMALL, outer=TRPO(damping=1e-3)),
    "emaml": MAML(policy=SMALL, outer=PPO(), estimator="emaml"),
    "promp": ProMP(policy=SMALL, target_kl=0.01),
    "reptile": Reptile(policy=SMALL),
}


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("size", [2, 3])
def test_the_update_of_ranks_is_that_of_one_process(name: str, size: int) -> None:
    learner = LEARNERS[name]
    meta, batches = meta_batch(MAML(policy=SMALL))
    batches = tree_map(lambda x: torch.cat([x] * 6)[: len(x) // size * size or size], batches)  # divisible
    state = type(learner.init(find_spec(batches), torch.Generator().manual_seed(0)))
    begun: Any = (
        state(meta, {}, torch.full((1,), 0.1))
        if name == "promp"
        else state(meta, {})
        if name != "reptile"
        else state(meta)
    )
    alone, told = meta_update(learner, begun, batches)
    found = on_ranks(size, lambda: meta_update(learner, begun, own(batches)))
    step = flatten(alone.meta) - flatten(meta)
    assert step.norm() > 0
    for after, metrics in found:
        error = (flatten(after.meta) - flatten(alone.meta)).norm() / step.norm()
        assert error < 1e-4, error
        assert metrics.keys() == told.keys()
        for key, value in told.items():
            assert metrics[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
    for after, _ in found[1:]:
        assert torch.equal(flatten(after.meta), flatten(found[0][0].meta))  # to the bit: ranks never part
    # negative control: a rank alone with its own tasks goes elsewhere
    half, _ = meta_update(learner, begun, tree_map(lambda x: x[: len(x) // size], batches))
    assert (flatten(half.meta) - flatten(alone.meta)).norm() / step.norm() > 1e-3


def find_spec(batches: list[Any]) -> Any:
    from metarl.envs.api import EnvSpec

    _, _, horizon, obs_dim = batches[0].obs.shape
    return EnvSpec(obs_dim, batches[0].action.shape[-1], horizon, terminates=False, has_success=False)


@pytest.mark.parametrize("options", [{}, {"standardize_reward": True, "minibatches": 2}, {"baseline": True}], ids=str)
def test_the_update_of_rl2_on_two_ranks_is_that_of_one_process(options: dict[str, Any]) -> None:
    options = options | ({"baseline": LinearFeatureBaseline()} if "baseline" in options else {})
    learner = RL2(policy=RecurrentPolicy(memory="gru", memory_size=8), epochs=2, **options)
    tasks = find_preset("bandit", "k5")
    env = tasks.make(8, 1, seed=0)
    env.set_tasks(tasks.sample(8, torch.Generator().manual_seed(0)))
    state = learner.init(tasks.spec, torch.Generator().manual_seed(0))
    batch, _ = rollout(env, learner.act, learner.actor(state, 8), 6, torch.Generator().manual_seed(0), trials=True)

    def updated(batch: Any) -> Any:
        return meta_update(learner, state, [learner.credit(state, batch)])

    alone, told = updated(batch)
    found = on_ranks(2, lambda: updated(tree_map(ranks.own, batch)))
    step = flatten(alone.meta) - flatten(state.meta)
    for after, metrics in found:
        assert (flatten(after.meta) - flatten(alone.meta)).norm() / step.norm() < 1e-3
        torch.testing.assert_close(after.return_scale, alone.return_scale, rtol=1e-5, atol=1e-5)
        assert metrics["train/loss"] == pytest.approx(told["train/loss"], rel=1e-3, abs=1e-5)


def test_ranks_divide_the_tasks_of_one_process() -> None:
    x = torch.arange(12).view(6, 2)
    assert ranks.own(x) is x
    assert ranks.gathered(x) is x
    parts = on_ranks(3, lambda: ranks.own(x))
    assert [part.tolist() for part in parts] == [x[:2].tolist(), x[2:4].tolist(), x[4:].tolist()]
    for whole in on_ranks(3, lambda: ranks.gathered(ranks.own(x))):
        assert torch.equal(whole, x)
    kinds = on_ranks(2, lambda: ranks.mean_metrics({"a": float(ranks.rank()), f"kind {ranks.rank()}": 5.0}))
    assert kinds[0] == {"a": 0.5, "kind 0": 5.0, "kind 1": 5.0}


def test_tasks_that_cannot_be_divided_are_refused() -> None:
    experiment = Experiment(task=find_preset("navigation"), learner=MAML(), num_tasks=4)
    on_ranks(2, lambda: require_shares(experiment))
    with pytest.raises(ValueError, match=r"num_tasks is 5: use a multiple of the number of processes \(2\)"):
        on_ranks(2, lambda: require_shares(replace(experiment, num_tasks=5)))
