"""Every one of the 50 tasks against Meta-World's own environment, step by step, in float64."""

import numpy as np
import pytest
import torch
from metaworld.policies import ENV_POLICY_MAP
from official_metaworld import official, terms

from metarl.envs.metaworld.goals import draw_goals
from metarl.envs.metaworld.sawyer import SAWYER
from metarl.envs.metaworld.scene import Scene
from metarl.envs.metaworld.worlds import ENVIRONMENTS, TaskWorlds

STEPS = 100
TOLERANCE = 1e-9
NEAR = {  # m within which Meta-World reports near_object, else 0.03; None: it reports how near, or a part of the reward
    0.01: "dial-turn drawer-close faucet-close faucet-open",
    0.04: "bin-picking",
    0.05: "basketball button-press button-press-topdown button-press-topdown-wall button-press-wall coffee-button "
    "door-lock door-unlock handle-press handle-press-side handle-pull handle-pull-side window-close window-open",
    None: "assembly box-close disassemble door-close door-open hammer reach reach-wall",
}
RADIUS = {f"{name}-v3": radius for radius, names in NEAR.items() for name in names.split()}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Constant.s. may be too high"),  # of the scripted policies
]


def our_worlds(name: str, vecs: np.ndarray, *, reward: str = "v2", show_goal: bool = True) -> TaskWorlds:
    """A world for each row of ``vecs``, just reset."""
    worlds = TaskWorlds(SAWYER[name], len(vecs), reward=reward, show_goal=show_goal, physics="cpu", num_threads=1)
    worlds.set_goals(torch.from_numpy(vecs))
    worlds.reset(torch.ones(len(vecs), dtype=torch.bool))
    return worlds


def our_terms(worlds: TaskWorlds, scene: Scene, version: str) -> dict[str, torch.Tensor]:
    """What Meta-World's info holds, in its names."""
    task, obj = worlds.task, worlds.frame[:, 4:7]
    found = task.reward(scene, obj) if version == "v2" else task.reward_v1(scene, obj)
    radius = RADIUS.get(task.name, 0.03)
    ours = {
        "reward": found.reward,
        "unscaled_reward": found.reward,
        "near_object": found.near if radius is None else found.near <= radius,
        "grasp_reward": found.grasp_reward,
        "in_place_reward": found.in_place_reward,
        "obj_to_target": found.obj_to_target,
        "success": task.success(scene, found),
    }
    return {name: torch.as_tensor(term).expand(len(obj)) for name, term in ours.items()}


def test_there_are_fifty():
    assert sorted(ENV_POLICY_MAP) == list(ENVIRONMENTS)


@pytest.mark.parametrize("goals", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_equals_the_official_environment(name: str, goals: int):
    """Of each goal 100 random and 100 scripted steps: reset, observation, both rewards and all their terms."""
    vecs = draw_goals((name,), 7)[name][:goals].repeat(2, axis=0)
    worlds, envs = our_worlds(name, vecs), [official(name, vec, show_goal=True) for vec in vecs]
    box = envs[0]._random_reset_space
    assert np.array_equal(box.low, worlds.task.vec_low)
    assert np.array_equal(box.high, worlds.task.vec_high)
    obs = np.stack([env.reset()[0] for env in envs])
    np.testing.assert_allclose(worlds.obs.numpy(), obs, rtol=0, atol=1e-12)
    assert np.array_equal([env.data.qpos for env in envs], worlds.physics.bind("qpos").numpy())
    policy, draws = ENV_POLICY_MAP[name](), np.random.default_rng(0)
    for step in range(STEPS):
        action = draws.uniform(-1, 1, size=(len(vecs), 4))
        action[1::2] = [np.clip(policy.get_action(x), -1, 1) for x in obs[1::2]]
        worlds.act(torch.from_numpy(action))
        worlds.physics.step(5)
        scene = worlds.observe()
        obs = np.stack([env.step(a)[0] for env, a in zip(envs, action, strict=True)])
        np.testing.assert_allclose(worlds.obs.numpy(), obs, rtol=0, atol=TOLERANCE, err_msg=f"step {step}")
        for version in ("v2", "v1"):
            found = our_terms(worlds, scene, version)
            for world, env in enumerate(envs):
                expected = terms(env, version, obs[world], action[world])
                ours = {key: float(found[key][world]) for key in expected}
                assert ours == pytest.approx(expected, abs=TOLERANCE), f"{version}, step {step}, world {world}"
