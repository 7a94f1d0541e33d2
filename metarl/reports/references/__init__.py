"""What earlier algorithms earn on the tasks of RL², and what no algorithm can exceed."""

from typing import Any

from torch import Tensor

from metarl.envs.registry import TaskDistribution
from metarl.reports.references import bandit, grid_navi, mdp
from metarl.reports.references.choice import Random
from metarl.reports.references.gittins import bayes_optimal_value
from metarl.reports.references.half_circle import optimal_return
from metarl.reports.references.planning import optimal_value
from metarl.reports.references.search import best_with_knowledge, grid_of, optimal_search
from metarl.types import Agent

__all__ = ["bounds", "references"]


def references(task: TaskDistribution, episodes: int) -> dict[str, Agent]:
    """Agents to compare with in trials of so many episodes, by name; none where none are known."""
    spec = task.spec
    if task.name == "bandit":
        pulls = episodes * spec.horizon
        c, epsilon = bandit.tuned(pulls, spec.action_dim)
        return {
            "random": Random(),
            # the discount whose horizon 1 / (1 - discount) is the trial; that of the RL² paper is not known
            "Gittins index": bandit.Gittins(1 - 1 / pulls, pulls),
            "Thompson sampling": bandit.ThompsonSampling(),
            "OTS (May 2012)": bandit.OptimisticThompsonSampling(),
            "UCB1": bandit.UCB1(c),
            "epsilon-greedy": bandit.EpsilonGreedy(epsilon),
            "greedy": bandit.Greedy(),
        }
    if task.name == "tabular_mdp":
        scaling, beta, epsilon = mdp.tuned(episodes)
        return {
            "random": Random(),
            "PSRL": mdp.PSRL(spec.horizon),
            "OPSRL": mdp.OptimisticPSRL(spec.horizon),
            "UCRL2": mdp.UCRL2(spec.horizon, scaling),
            "BEB": mdp.BEB(spec.horizon, beta),
            "epsilon-greedy": mdp.EpsilonGreedyMDP(spec.horizon, epsilon),
            "greedy": mdp.GreedyMDP(spec.horizon),
        }
    if task.name == "grid_navi":
        grid = grid_of(task)
        known = optimal_search(grid, episodes) is not None
        agents: dict[str, Agent] = {"random": Random(), "posterior sampling": grid_navi.PosteriorSampling(grid)}
        return agents | ({"Bayes-optimal": grid_navi.BayesOptimal(grid, episodes)} if known else {})
    return {}


def bounds(task: TaskDistribution, tasks: Tensor, episodes: int) -> dict[str, float]:
    """Expected total returns of a trial that none can exceed.

    "knows the task" is on average over ``tasks``, "Bayes-optimal" (for few pulls and small grids alone) over the task
    distribution.
    """
    if task.name == "bandit":
        pulls = episodes * task.spec.horizon
        limits = {"knows the task": pulls * tasks.double().amax(-1).mean().item()}
        optimum = bayes_optimal_value(task.spec.action_dim, pulls)
        return limits if optimum is None else limits | {"Bayes-optimal": optimum}
    if task.name == "tabular_mdp":
        return {"knows the task": episodes * optimal_value(tasks, task.spec.horizon).mean().item()}
    if task.name == "half_circle":
        definition: Any = task
        return {"knows the task": episodes * optimal_return(definition, tasks).mean().item()}
    if task.name == "grid_navi":
        grid, search = grid_of(task), optimal_search(grid_of(task), episodes)
        limits = {"knows the task": float(best_with_knowledge(grid, tasks.double().cpu().numpy(), episodes).mean())}
        return limits if search is None else limits | {"Bayes-optimal": float(search.returns.sum())}
    return {}
