"""Meta-World's scripted policies solve as many goals in our worlds as in its own environments."""

import warnings

import numpy as np
import pytest
import torch
from metaworld.policies import ENV_POLICY_MAP
from official_metaworld import official

from metarl.envs.metaworld.goals import draw_goals
from metarl.envs.metaworld.sawyer import SAWYER
from metarl.envs.metaworld.worlds import ENVIRONMENTS, TaskWorlds

GOALS, HORIZON = 10, 500

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def scripted(name: str, obs: np.ndarray) -> np.ndarray:
    policy = ENV_POLICY_MAP[name]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Constant.s. may be too high")
        return np.stack([np.clip(policy.get_action(x), -1, 1) for x in obs]).astype(np.float64)


def solved_in_ours(name: str, vecs: np.ndarray) -> np.ndarray:
    """Which goals are solved within an episode."""
    worlds = TaskWorlds(SAWYER[name], len(vecs), show_goal=True)
    worlds.set_goals(torch.from_numpy(vecs))
    worlds.reset(torch.ones(len(vecs), dtype=torch.bool))
    solved = torch.zeros(len(vecs), dtype=torch.bool)
    for _ in range(HORIZON):
        worlds.act(torch.from_numpy(scripted(name, worlds.obs.numpy())))
        worlds.physics.step(5)
        solved |= worlds.evaluate()[1]
    return solved.numpy()


def solved_in_theirs(name: str, vec: np.ndarray) -> bool:
    env = official(name, vec, show_goal=True)
    obs, solved = env.reset()[0], False
    env.reward_function_version = "v2"
    for _ in range(HORIZON):
        obs, _, _, _, info = env.step(scripted(name, obs[None])[0])
        solved |= bool(info["success"])
    return solved


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_scripted_policies_solve_the_same_goals(name: str):
    vecs = draw_goals((name,), 1)[name][:GOALS]
    ours = solved_in_ours(name, vecs)
    theirs = [solved_in_theirs(name, vec) for vec in vecs]
    print(f"{name}: {ours.sum()} of {GOALS}")
    assert ours.tolist() == theirs
