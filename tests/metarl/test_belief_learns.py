"""The ELBO teaches VariBAD's belief Bayes' rule: on a grid of five goals, where the posterior is known exactly."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.algorithms.trial_replay import trials_of
from metarl.envs.small.grid_navi import GridNavi
from metarl.losses.elbo import ELBO, Trials
from metarl.losses.ppo import Slope, descend
from metarl.networks.belief import BeliefModel, Posterior, Transitions
from metarl.networks.distributions import Categorical
from metarl.networks.layers import apply_layers
from metarl.reports.belief_error import decoded_belief, exact_belief, found_by, total_variation
from metarl.reports.references.search import grid_of
from metarl.rollout import rollout
from metarl.types import Params, TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = GridNavi(cells=3, horizon=20)
MODEL = BeliefModel(
    belief_units=32,
    obs_units=32,
    decoder_sizes=(32,),
    decode_task=2,
    reward_model="bernoulli",
    reward_of="next_obs",
    levels=(3, 3),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_walk(actor: Any, obs: Tensor, previous: Any, generator: torch.Generator) -> tuple[Tensor, Categorical, Any]:
    dist = Categorical(torch.zeros(*obs.shape[:2], 5).log_softmax(-1))
    return dist.sample(generator), dist, actor


def walks(num_trials: int, seed: int) -> tuple[TrajectoryBatch, Trials]:
    """Of one episode each: whether a cell is visited says nothing of the goal, so both decoders' optimum is Bayes."""
    env, tasks = TASK.make(num_trials, 1, seed=seed), TASK.sample(num_trials, seeded(seed))
    env.set_tasks(tasks)
    batch, _ = rollout(env, random_walk, (), 1, seeded(seed), trials=True)
    return batch, trials_of(batch, tasks)


@pytest.mark.parametrize(
    ("updates", "at_once", "later", "before"),
    [(320, 0.25, 0.15, 0.25), pytest.param(1400, 0.1, 0.05, 0.12, marks=pytest.mark.slow)],
)
def test_the_elbo_teaches_bayes_rule(updates: int, at_once: float, later: float, before: float):
    """Total variation from the exact posterior, of walks that were not trained on: right after the goal is met, ever
    after, and as long as only cells were ruled out. Who believes the prior always is wrong by 0.8, 0.8 and 0.16."""
    _, data = walks(20_000, 1)
    batch, _ = walks(200, 2)
    generator = seeded()
    params, optimizer = MODEL.init(TASK.spec, generator), {}
    elbo = ELBO(elbo_prefixes=8)

    def slopes(leaves: Params) -> Iterator[Slope]:
        chosen = torch.randint(len(data.length), (50,), generator=generator)
        loss, _ = elbo(MODEL, leaves, tree_map(lambda x: x[chosen], data), generator)
        yield Slope(dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True)), {})

    for rate in (1e-2, 7.5e-3, 5e-3, 2.5e-3):
        moved = descend(params, optimizer, slopes, epochs=updates // 4, learning_rate=rate, max_grad_norm=1.0)
        assert moved is not None
        params, optimizer = moved.params, moved.optimizer
    found = found_by(grid_of(TASK), batch)
    first = found & (found.long().cumsum(1) == 1)
    for decoder, distance in distances(params, batch).items():
        assert distance[first].mean() < at_once, decoder
        assert distance[found].mean() < later, decoder
        assert distance[~found].mean() < before, decoder


def distances(params: Params, batch: TrajectoryBatch) -> dict[str, Tensor]:
    """By decoder, [trial moment]."""
    grid = grid_of(TASK)
    goals = MODEL.index(torch.tensor(grid.goals).float())
    steps = Transitions(*(getattr(batch, name).flatten(0, 1) for name in Transitions._fields))
    with torch.no_grad():
        posterior = Posterior(*(x.expand(32, *x.shape) for x in MODEL.posteriors(params, steps)))
        logits = apply_layers(params, "decoder.task", posterior.sample(seeded(3)))
    task = logits.softmax(-1).mean(0)[..., goals]
    reward = decoded_belief(MODEL, params, grid, batch, seeded(3))
    exact = exact_belief(grid, batch)
    return {"task": total_variation(task, exact), "reward": total_variation(reward, exact)}
