"""Meta-World on MuJoCo Warp, on its CPU device, against the same tasks on MuJoCo's C engine."""

import os

import numpy as np
import pytest
import torch
import warp
from test_metaworld_scripted import scripted

from metarl.envs.metaworld import ML10
from metarl.envs.metaworld.goals import draw_goals
from metarl.envs.metaworld.sawyer import SAWYER
from metarl.envs.metaworld.worlds import ENVIRONMENTS, TaskWorlds

pytestmark = pytest.mark.usefixtures("one_thread")

GOALS = 3
DEVICE = os.environ.get("METARL_TEST_DEVICE", "cpu")  # cuda: tests/gpu.sh
if DEVICE == "cpu":
    warp.config.optimization_level = 0  # kernels compile in half the time
QUICK = {"door-open-v3", "stick-push-v3", "peg-insert-side-v3"}  # joints, touch, moved boxes
QUICK_FIRST = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ENVIRONMENTS]


def make(name: str, engine: str) -> TaskWorlds:
    worlds = TaskWorlds(SAWYER[name], GOALS, show_goal=True, physics=engine, device=DEVICE, num_threads=1)
    worlds.set_goals(torch.from_numpy(draw_goals((name,), 1)[name][:GOALS]))
    worlds.reset(torch.ones(GOALS, dtype=torch.bool, device=worlds.physics.device))
    return worlds


def actions_of(name: str, worlds: TaskWorlds, step: int) -> torch.Tensor:
    """The scripted policy's and random ones, in turns."""
    if step % 2:
        return 2 * torch.rand(GOALS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step)) - 1
    return torch.from_numpy(scripted(name, worlds.obs.cpu().double().numpy()))


@pytest.mark.parametrize("name", QUICK_FIRST)
def test_steps_agree_with_the_c_engine(name: str) -> None:
    """Observation, reward and success of a step from equal states, and the drift of a free run of 20 steps."""
    c, warp, free = make(name, "cpu"), make(name, "warp"), make(name, "warp")
    assert warp.obs.dtype == torch.float32
    assert (c.obs - free.obs.cpu()).abs().max() < 1e-6, "resets"
    errors = []
    for step in range(20):
        warp.load_state_dict(c.state_dict())
        action = actions_of(name, c, step)
        found = []
        for worlds in (c, warp, free):
            worlds.act(action.to(worlds.obs.device))
            assert not worlds.physics.step(5).any()
            terms, solved, _ = worlds.evaluate()
            found.append((terms.reward.cpu().double(), solved.cpu(), worlds.obs.cpu().double()))
        (reward, solved, obs), (warp_reward, warp_solved, warp_obs), _ = found
        assert torch.equal(solved, warp_solved)
        errors.append([float((obs - warp_obs).abs().max()), float((reward - warp_reward).abs().max())])
    obs_error, reward_error = np.array(errors).T
    assert np.median(obs_error) < 1e-4, "resting contacts are the least exact"
    assert np.quantile(obs_error, 0.85) < 2e-3, "but for contacts that one engine meets a substep earlier"
    assert np.quantile(reward_error, 0.85) < 2e-3  # of 10
    hand = slice(0, 4)
    assert (c.obs[:, hand] - free.obs[:, hand].cpu()).abs().median() < 1e-4
    assert warp.physics.num_overflowed == free.physics.num_overflowed == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_scripted_policies_solve_the_same_goals_as_on_the_c_engine(name: str) -> None:
    solved = {}
    for engine in ("cpu", "warp"):
        worlds = make(name, engine)
        solved[engine] = torch.zeros(GOALS, dtype=torch.bool)
        for _ in range(500):
            worlds.act(actions_of(name, worlds, 0).to(worlds.obs.device))
            worlds.physics.step(5)
            solved[engine] |= worlds.evaluate()[1].cpu()
    assert solved["cpu"].sum() == solved["warp"].sum()


@pytest.mark.slow
def test_ml10_on_both_engines_begins_alike_and_keeps_its_hidden_goals() -> None:
    """Ten models side by side: first observations, rewards and flags of the first steps."""
    env = {}
    for engine in ("cpu", "warp"):
        env[engine] = ML10().make(10, 1, seed=0, device=DEVICE, physics=engine, num_threads=1)
        env[engine].set_tasks(ML10().sample(10, torch.Generator().manual_seed(0)))
    assert torch.allclose(env["cpu"].reset(), env["warp"].reset(), atol=1e-6)
    for step in range(2):
        action = (2 * torch.rand(10, 1, 4, generator=torch.Generator().manual_seed(step)) - 1).to(DEVICE)
        c, gpu = env["cpu"].step(action), env["warp"].step(action)
        assert torch.allclose(c.obs, gpu.obs, atol=2e-3)
        assert torch.allclose(c.reward, gpu.reward, atol=2e-2)
        assert torch.equal(c.success, gpu.success)
        assert not gpu.obs[..., 36:].any()
