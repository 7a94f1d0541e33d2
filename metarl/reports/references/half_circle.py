"""What a point on the half circle can earn: who knows the goal, and who must look for it.

Nobody beats who knows the goal. A searcher's best plan is a path over all that it does not know; here it is the best of
a family of paths, straight to a circle of some radius and along it, chosen episode by episode for the goals that are
left (dynamic programming over sets of goals). The first paid step counts as telling the goal, which two of them do.
"""

import math
from itertools import product
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NUM_GOALS = 91  # of the search, every two degrees
STARTS, RADII = 19, (0.85, 0.95, 1.0)  # of the family; from the ends of the arc on, either way
EXACT = 3  # episodes whose paths are chosen together


@runtime_checkable
class HalfCircle(Protocol):
    """The task's definition, as far as it matters here."""

    @property
    def horizon(self) -> int: ...
    @property
    def radius(self) -> float: ...
    @property
    def max_step(self) -> float: ...
    @property
    def reward(self) -> str: ...


def on_circle(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def paid(task: HalfCircle, position: Float[Tensor, "*batch 2"], goal: Float[Tensor, "*#batch 2"]) -> Tensor:
    """The reward of standing there."""
    distance = (position - goal).norm(dim=-1)
    return -distance if task.reward == "dense" else (1 - distance).where(distance <= task.radius + 1e-6, 0.0)


def knowing(
    task: HalfCircle, goal: Float[Tensor, "*batch 2"], start: Float[Tensor, "*batch 2"], steps: int
) -> Float[Tensor, "*batch steps"]:
    """Reward after each of so many steps straight to the goal, each axis on its own: at no step can one be closer."""
    reach = task.max_step * torch.arange(1, steps + 1, dtype=goal.dtype).unsqueeze(-1)
    way = (goal - start).unsqueeze(-2)
    return paid(task, start.unsqueeze(-2) + way.clamp(-reach, reach), goal.unsqueeze(-2))


def optimal_return(task: HalfCircle, goal: Float[Tensor, "task 2"]) -> Float[Tensor, " task"]:
    """Of an episode for who knows the goal."""
    return knowing(task, goal.double(), torch.zeros(len(goal), 2, dtype=torch.float64), task.horizon).sum(-1)


def path(task: HalfCircle, start: float, way: int, radius: float) -> Float[Tensor, "steps 2"]:
    """Straight to the circle of ``radius`` at angle ``start``, then along it, both as fast as the box of actions lets;
    at the end of the half circle it stands still."""
    angles = torch.linspace(start, math.pi if way > 0 else 0.0, 400, dtype=torch.float64)
    circle = radius * on_circle(angles)
    here, reached, positions = torch.zeros(2, dtype=torch.float64), 0, []
    for _ in range(task.horizon):
        apart = (circle[reached:] - here).abs().amax(1)
        too_far = (apart > task.max_step).nonzero()
        if apart[0] <= task.max_step:  # as far along as one step goes
            reached += (int(too_far[0]) if len(too_far) else len(apart)) - 1
        here = here + (circle[reached] - here).clamp(-task.max_step, task.max_step)
        positions.append(here)
    return torch.stack(positions)


def searched(
    task: HalfCircle, path: Float[Tensor, "steps 2"], goal: Float[Tensor, "goal 2"]
) -> tuple[Bool[Tensor, " goal"], Float[Tensor, " goal"]]:
    """Which goals a path comes near, and the return of leaving it for the goal at the first paid step."""
    rewards = paid(task, path.expand(len(goal), -1, -1), goal.unsqueeze(1))
    found = rewards > 0
    first = found.int().argmax(1)
    then = knowing(task, goal, path[first], task.horizon)  # as many steps; those past the end do not count
    left = torch.arange(1, task.horizon + 1) < task.horizon - first.unsqueeze(1)
    earned = rewards.gather(1, first.unsqueeze(1)).squeeze(1) + (then * left).sum(1)
    return found.any(1), earned.where(found.any(1), 0.0)


def search_return(task: HalfCircle, episodes: int) -> float:
    """Expected return of the best such search in a trial of so many episodes, of goals at any angle."""
    goal = on_circle(torch.linspace(0, math.pi, NUM_GOALS, dtype=torch.float64))
    starts = torch.linspace(0, math.pi, STARTS).tolist()
    family = [path(task, *plan) for plan in product(starts, (1, -1), RADII)]
    pairs = [searched(task, one, goal) for one in family]
    found, earned = torch.stack([f for f, _ in pairs]).double(), torch.stack([e for _, e in pairs])
    known = optimal_return(task, goal)

    def best(left: Float[Tensor, "set goal"], episodes: int) -> Float[Tensor, " set"]:
        """Sum over the goals of each set."""
        now = left @ (earned + (episodes - 1) * known * found).T  # [set path]
        if episodes == 1:
            return now.amax(1)
        if episodes > EXACT:
            chosen = now.argmax(1)
            return now.amax(1) + best(left * (1 - found[chosen]), episodes - 1)
        after = torch.unique((left.unsqueeze(1) * (1 - found)).flatten(0, 1), dim=0, return_inverse=True)
        later = torch.cat([best(some, episodes - 1) for some in after[0].split(64)])[after[1]]
        return (now + later.view_as(now)).amax(1)

    return best(torch.ones(1, NUM_GOALS, dtype=torch.float64), episodes).item() / NUM_GOALS
