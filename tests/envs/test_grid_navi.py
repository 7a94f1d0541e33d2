"""GridNavi against a loop over one world by the paper's rules."""

import io
from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch

from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.envs.small.grid_navi import ACTIONS, GOAL, INK, GridNavi

pytestmark = pytest.mark.usefixtures("one_thread")
MOVES = {"stay": (0, 0), "up": (0, 1), "right": (1, 0), "down": (0, -1), "left": (-1, 0)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_hot(action: int) -> torch.Tensor:
    return torch.eye(5)[action]


def test_worlds_move_and_pay_as_one_by_itself():
    """300 random steps of 6 worlds: walls, rewards, time limits, and the start in the corner after each."""
    task = find_preset("grid_navi")
    env = task.make(3, 2, seed=0)
    goals = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 2.0]])
    env.set_tasks(goals)
    obs = env.reset()
    place = np.zeros((3, 2, 2), int)
    met = 0
    for step in range(300):
        assert obs.equal(torch.from_numpy(place).float())
        action = torch.randint(5, (3, 2), generator=seeded(step))
        found = env.step(one_hot(action))  # type: ignore[arg-type]
        for i, j in np.ndindex(3, 2):
            move = MOVES[ACTIONS[action[i, j]]]
            place[i, j] = [min(max(place[i, j, axis] + move[axis], 0), 4) for axis in range(2)]
            there = place[i, j].tolist() == goals[i].tolist()
            met += there
            assert found.reward[i, j] == pytest.approx(1.0 if there else -0.1)
        assert found.next_obs.equal(torch.from_numpy(place).float())
        assert found.truncated.eq(step % 15 == 14).all()
        assert not found.terminated.any()
        if step % 15 == 14:
            place[:] = 0
        obs = found.obs
    assert met > 20


def test_goals_are_all_cells_but_those_around_the_start():
    task = GridNavi()
    count = Counter(map(tuple, task.sample(21_000, seeded()).int().tolist()))
    assert set(count) == {(x, y) for x in range(5) for y in range(5)} - {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all(abs(number - 1000) < 5 * 1000**0.5 for number in count.values())
    assert len(GridNavi(cells=7).goals()) == 45
    with pytest.raises(BadField, match="cells is 2: use at least 3"):
        GridNavi(cells=2)


def test_a_snapshot_continues_to_the_bit():
    env = GridNavi().make(2, 2, seed=0)
    env.set_tasks(torch.tensor([[2.0, 0.0], [4.0, 4.0]]))
    env.reset()
    env.step(one_hot(2).expand(2, 2, 5))
    buffer = io.BytesIO()
    torch.save(env.state_dict(), buffer)
    expected = env.step(one_hot(2).expand(2, 2, 5))
    other = GridNavi().make(2, 2, seed=5)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    again = other.step(one_hot(2).expand(2, 2, 5))
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
    assert again.reward[0].eq(1.0).all()
    assert np.array_equal(env.worlds.picture(0), other.worlds.picture(0))  # type: ignore[attr-defined]


def test_gymnasium_plays_and_draws_it():
    env = gymnasium.make("metarl.envs:metarl/GridNavi-v0", task=[3.0, 1.0], render_mode="rgb_array")
    env.reset(seed=0)
    env.step(ACTIONS.index("up"))
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (400, 400, 3)

    def at(column: float, row: float) -> tuple[int, ...]:
        return tuple(picture[int(400 - 80 * row) - 1, int(80 * column)].tolist())

    assert at(3.5, 1.5) == GOAL
    assert at(0.5, 1.5) == INK  # the agent
    assert at(0.5, 0.5) == at(0.5, 1.1) != at(1.5, 1.5)  # where it was
    assert env.unwrapped.tasks.in_words(torch.tensor([3.0, 1.0])) == "go to column 3, row 1"  # type: ignore[attr-defined]
