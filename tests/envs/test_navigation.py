"""Navigation by hand arithmetic: every expected number below can be checked on paper."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metarl.envs.registry import find_preset
from metarl.envs.small.navigation import PointWorlds
from metarl.envs.worlds import BatchedTaskEnv, Outcome

CPU = torch.device("cpu")
ROOT2 = math.sqrt(2)


def make_env(preset: str, goals: list[list[float]], num_envs: int = 1) -> BatchedTaskEnv:
    env = find_preset("navigation", preset).make(len(goals), num_envs, seed=0)
    env.set_tasks(torch.tensor(goals))
    env.reset()
    return env


def move(preset: str, before: Tensor, action: Tensor, goal: Tensor) -> Outcome:
    """One step of points that stand at ``before``, one world a row."""
    worlds = PointWorlds(find_preset("navigation", preset), len(before), CPU)
    worlds.set_tasks(goal)
    worlds.position = before
    return worlds.step(action)


# --- maml2017: the distance to the goal, after the step


def test_dense_reward_is_minus_the_distance_after_the_step() -> None:
    """Goal (.3, -.2), steps of .1 a: (0, 0) -> (.1, -.05) -> (.2, -.15) -> (.2, -.25)."""
    env = make_env("maml2017", [[0.3, -0.2]])
    positions = [(0.1, -0.05), (0.2, -0.15), (0.2, -0.25)]
    distances = [
        0.25,  # (.2, .15): a 3-4-5 triangle
        0.05 * math.sqrt(5),  # (.1, .05)
        0.05 * math.sqrt(5),  # (.1, .05), from the other side
    ]
    actions = [(1.0, -0.5), (1.0, -1.0), (0.0, -1.0)]
    for action, position, distance in zip(actions, positions, distances, strict=True):
        step = env.step(torch.tensor([[action]]))
        torch.testing.assert_close(step.next_obs[0, 0], torch.tensor(position))
        assert step.reward.item() == pytest.approx(-distance, rel=1e-5)
        assert not step.terminated.item()


@pytest.mark.parametrize(
    ("action", "arrives"),
    [
        ((0.95, 0.95), True),  # (.095, .095): .005 and .005 away
        ((0.91, 1.0), True),  # (.091, .100): .009 and 0
        ((0.89, 1.0), False),  # (.089, .100): .011 and 0
        ((0.95, 0.80), False),  # (.095, .080): one coordinate is not enough
        ((0.909, 0.909), True),  # .0091 each: a distance of .0129, yet within .01 in both
    ],
)
def test_dense_episode_ends_within_a_hundredth_in_both_coordinates(action: tuple[float, float], arrives: bool) -> None:
    env = make_env("maml2017", [[0.1, 0.1]])
    step = env.step(torch.tensor([[action]]))
    assert step.terminated.item() is arrives
    assert step.success.item() is arrives
    assert not step.truncated.item()
    # an arrival is still paid its distance, and the next episode begins at the origin
    away = [0.1 - 0.1 * a for a in action]
    assert step.reward.item() == pytest.approx(-math.hypot(*away), rel=1e-4)
    assert step.obs.eq(0).all().item() is arrives
    torch.testing.assert_close(step.next_obs[0, 0], 0.1 * torch.tensor(action))


def test_dense_episode_starts_at_the_origin() -> None:
    assert torch.equal(make_env("maml2017", [[0.3, 0.3], [0.1, 0.2]], 5).reset(), torch.zeros(2, 5, 2))


def test_dense_episode_is_truncated_after_100_steps() -> None:
    env = make_env("maml2017", [[0.5, 0.5]])
    steps = [env.step(torch.zeros(1, 1, 2)) for _ in range(100)]
    assert [step.truncated.item() for step in steps] == [False] * 99 + [True]
    assert not any(step.terminated.item() for step in steps)


def test_dense_goals_fill_the_square() -> None:
    """U[-.5, .5]^2: mean 0, variance 1/12, uncorrelated, each within 6 standard errors of 40,000 draws."""
    goals = find_preset("navigation").sample(40_000, torch.Generator().manual_seed(0))
    assert goals.shape == (40_000, 2)
    assert goals.abs().max() <= 0.5 < goals.abs().max() + 1e-3
    assert goals.mean(0).abs().max() < 6 * math.sqrt(1 / 12 / 40_000)
    assert (goals.var(0) - 1 / 12).abs().max() < 6 * math.sqrt((1 / 80 - 1 / 144) / 40_000)
    assert goals.prod(1).mean().abs() < 6 * (1 / 12) / 200


def test_published_goals_are_numpys_draws_of_seed_1() -> None:
    """RandomState(1).rand() begins .417022 .720324 .000114 .302333; a goal is a pair of draws less a half."""
    goals = find_preset("navigation", "maml2017").published_tasks(2)
    expected = torch.tensor([[-0.082978, 0.220324], [-0.499886, -0.197667]])
    torch.testing.assert_close(goals, expected, rtol=0, atol=1e-6)
    assert find_preset("navigation", "corner").published_tasks(2) is None


# --- corner: progress towards one of (+-2, +-2), but only near it


@pytest.mark.parametrize(
    ("before", "action", "goal", "reward"),
    [
        # (.2, .2) is within L1 .5 of the origin: silent, though .2 sqrt(2) nearer to the goal
        ((0.0, 0.0), (1.0, 1.0), (2.0, 2.0), 0.0),
        # to (.48, 0): |x| + |y| = .48 is silent; to (.52, 0): is not
        ((0.28, 0.0), (1.0, 0.0), (2.0, 2.0), 0.0),
        ((0.32, 0.0), (1.0, 0.0), (2.0, 2.0), math.hypot(1.68, 2) - math.hypot(1.48, 2)),
        # to (.3, .3): |x| + |y| = .6 is paid, 1.9 sqrt(2) - 1.7 sqrt(2), though its distance is .42
        ((0.1, 0.1), (1.0, 1.0), (2.0, 2.0), 0.2 * ROOT2),
        # (.2, .2) -> (.4, .4): 1.8 sqrt(2) - 1.6 sqrt(2)
        ((0.2, 0.2), (1.0, 1.0), (2.0, 2.0), 0.2 * ROOT2),
        # ... the same step earns nothing where the goal is another corner
        ((0.2, 0.2), (1.0, 1.0), (-2.0, -2.0), 0.0),
        ((0.2, 0.2), (1.0, 1.0), (2.0, -2.0), 0.0),
        # away from the goal, still its quadrant: -(1.6 - 1.4) sqrt(2)
        ((0.6, 0.6), (-1.0, -1.0), (2.0, 2.0), -0.2 * ROOT2),
        # half a step along one axis: from (-2, 1) to (-2, 1.1) under the goal (-2, 2)
        ((-2.0, 1.0), (0.0, 0.5), (-2.0, 2.0), 0.1),
        # into the goal's quadrant, (-.1, -1) -> (.1, -1): the corner nearest *after* the step counts
        ((-0.1, -1.0), (1.0, 0.0), (2.0, -2.0), math.hypot(2.1, 1) - math.hypot(1.9, 1)),
    ],
)
def test_corner_reward(
    before: tuple[float, float], action: tuple[float, float], goal: tuple[float, float], reward: float
) -> None:
    outcome = move("corner", torch.tensor([before]), torch.tensor([action]), torch.tensor([goal]))
    assert outcome.reward.item() == pytest.approx(reward, abs=1e-6)
    assert not outcome.terminated.item()


def test_corner_steps_are_two_tenths() -> None:
    """Clipped action (1, -1) from the start s: s + (.2, -.2)."""
    env = make_env("corner", [[2.0, 2.0]])
    start = env.reset()
    step = env.step(torch.tensor([[[3.0, -9.0]]]))
    torch.testing.assert_close(step.next_obs - start, torch.tensor([[[0.2, -0.2]]]))


def test_going_to_and_fro_across_a_border_of_the_corner_task_earns_more_than_solving_it() -> None:
    """As in ProMP's environment; what tells the two apart is success."""

    def play(action: Callable[[Tensor], list[float]]) -> tuple[float, bool]:
        env = make_env("corner", [[2.0, 2.0]])
        obs, earned, solved = env.reset(), 0.0, False
        for _ in range(100):
            step = env.step(torch.tensor(action(obs[0, 0])).view(1, 1, 2))
            obs, earned, solved = step.next_obs, earned + step.reward.item(), solved or bool(step.success)
        return earned, solved

    earned, solved = play(lambda at: ((2 - at) / 0.2).clamp(-1, 1).tolist())
    assert 2.4 < earned < 2.8
    assert solved
    earned, solved = play(lambda at: [0.0, 1.0] if at[1] < 1 else [1.0 if at[0] <= 0 else -1.0, 0.0])
    assert earned > 8
    assert not solved


def test_corner_reward_of_a_world_does_not_depend_on_how_many_stand_beside_it() -> None:
    """Points around their goal at (2, 2): each pays for its progress, in a batch of 1 as in one of 1,000."""
    generator = torch.Generator().manual_seed(0)
    goal = torch.full((1000, 2), 2.0)
    before = goal + torch.rand(1000, 2, generator=generator) - 0.5
    action = 2 * torch.rand(1000, 2, generator=generator) - 1
    together = move("corner", before, action, goal).reward
    alone = [move("corner", before[i : i + 1], action[i : i + 1], goal[:1]).reward for i in range(100)]
    progress = (before - goal).norm(dim=1) - (before + 0.2 * action - goal).norm(dim=1)
    torch.testing.assert_close(torch.cat(alone), progress[:100], rtol=0, atol=1e-6)
    torch.testing.assert_close(together, progress, rtol=0, atol=1e-6)


def test_corner_success_is_within_half_a_step_of_the_corner() -> None:
    """Distance .49 and .51 along one axis; success does not end the episode."""
    before = torch.tensor([[1.51, 2.0], [1.49, 2.0]])
    outcome = move("corner", before, torch.zeros(2, 2), torch.full((2, 2), 2.0))
    assert outcome.success.tolist() == [True, False]
    assert not outcome.terminated.any()


def test_corner_starts_around_the_origin() -> None:
    """U[-.2, .2]^2: mean 0, variance .4^2 / 12; 6 standard errors of 20,000 draws."""
    env = find_preset("navigation", "corner").make(1, 20_000, seed=0)
    env.set_tasks(torch.tensor([[2.0, 2.0]]))
    start = env.reset()[0]
    assert start.abs().max() <= 0.2 < start.abs().max() + 1e-3
    assert start.mean(0).abs().max() < 6 * math.sqrt(0.16 / 12 / 20_000)
    assert (start.var(0) - 0.16 / 12).abs().max() < 6 * 0.16 * math.sqrt((1 / 80 - 1 / 144) / 20_000)
    assert not torch.equal(env.reset()[0], start)


def test_corner_goals_are_the_four_corners() -> None:
    """A quarter each: 6 standard errors of 4,000 draws are .041."""
    goals = find_preset("navigation", "corner").sample(4000, torch.Generator().manual_seed(0))
    corners, counts = goals.unique(dim=0, return_counts=True)
    assert corners.tolist() == [[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]]
    assert (counts / 4000 - 0.25).abs().max() < 6 * math.sqrt(0.25 * 0.75 / 4000)


# --- both


@pytest.mark.parametrize(("preset", "max_step", "terminates"), [("maml2017", 0.1, True), ("corner", 0.2, False)])
def test_presets(preset: str, max_step: float, terminates: bool) -> None:
    task = find_preset("navigation", preset)
    assert (task.horizon, task.max_step) == (100, max_step)
    assert (task.spec.obs_dim, task.spec.action_dim, task.spec.horizon) == (2, 2, 100)
    assert (task.spec.terminates, task.spec.has_success) == (terminates, True)


@pytest.mark.parametrize("preset", ["maml2017", "corner"])
def test_the_goal_cannot_be_seen(preset: str) -> None:
    """Two tasks from one state: the same observations under the same actions, other rewards."""
    before, action = torch.full((2, 2), 0.3), torch.full((2, 2), 0.5)
    worlds = PointWorlds(find_preset("navigation", preset), 2, CPU)
    worlds.set_tasks(torch.tensor([[2.0, 2.0], [-2.0, 2.0]]))
    worlds.position = before
    reward = worlds.step(action).reward
    assert torch.equal(worlds.observe()[0], worlds.observe()[1])
    assert reward[0] != reward[1]


@pytest.mark.parametrize("preset", ["maml2017", "corner"])
def test_actions_beyond_the_range_are_clipped(preset: str) -> None:
    env = make_env(preset, [[0.4, 0.4]], num_envs=2)
    env.worlds.position[:] = 0.0
    step = env.step(torch.tensor([[[1.0, -1.0], [5.0, -torch.inf]]]))
    assert torch.equal(step.next_obs[0, 0], step.next_obs[0, 1])
    assert step.reward[0, 0] == step.reward[0, 1]


@pytest.mark.parametrize("preset", ["maml2017", "corner"])
def test_a_masked_reset_moves_its_worlds_alone(preset: str) -> None:
    env = make_env(preset, [[0.4, 0.4]], num_envs=4)
    env.step(torch.ones(1, 4, 2))
    before = env.worlds.observe()
    mask = torch.tensor([True, False, True, False])
    env.worlds.reset(mask, torch.Generator().manual_seed(0))
    after = env.worlds.observe()
    assert torch.equal(before[~mask], after[~mask])
    assert (before[mask] != after[mask]).all()


@pytest.mark.parametrize("max_step", [0.0, -0.1])
def test_a_step_must_lead_somewhere(max_step: float) -> None:
    with pytest.raises(ValueError, match=r"max_step is .* use more than 0"):
        type(find_preset("navigation"))(max_step=max_step)
