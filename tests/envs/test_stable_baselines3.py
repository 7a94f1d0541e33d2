"""Stable-Baselines3 as a client: its checks, its makers, the batched environment as its VecEnv, RL² by RecurrentPPO."""

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.envs.fields import BadField
from metarl.envs.gymnasium_env import GymnasiumEnv
from metarl.envs.trial import TrialWrapper

pytest.importorskip("stable_baselines3")
from stable_baselines3 import PPO
from stable_baselines3.common import env_checker
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from metarl.envs.sb3 import SB3VecEnv

pytestmark = pytest.mark.usefixtures("one_thread")
GOALS = [[0.35, 0.2], [-0.4, 0.1], [0.05, -0.45]]


@pytest.mark.parametrize("name", ["navigation", "tabular_mdp", "bandit", "cartpole_mass"])
def test_its_checker_has_nothing_to_say(name: str) -> None:
    """Warnings are errors here."""
    env_checker.check_env(GymnasiumEnv(name))


def test_its_maker_makes_tasks() -> None:
    """It first offers a render_mode and, where that is a TypeError, makes the environment without one."""
    env = make_vec_env("metarl/Navigation-v0", n_envs=2, env_kwargs={"horizon": 5})
    assert isinstance(env, DummyVecEnv)
    assert env.get_attr("spec")[0].kwargs["horizon"] == 5
    env.seed(0)
    assert env.reset().shape == (2, 2)
    with pytest.raises(TypeError, match="hrizon is no option of navigation"):
        make_vec_env("metarl/Navigation-v0", env_kwargs={"hrizon": 5})


def test_the_batched_worlds_are_those_of_its_own_loop() -> None:
    """Observations, rewards, ends and what it reads of infos, where the first walks to its goal and terminates."""
    ours: Any = VecMonitor(SB3VecEnv("navigation", 3, task=GOALS, horizon=7), info_keywords=("is_success",))
    worlds = [lambda goal=goal: Monitor(GymnasiumEnv("navigation", task=goal, horizon=7)) for goal in GOALS]
    theirs = DummyVecEnv(worlds)
    obs, expected = ours.reset(), theirs.reset()
    draws, ends = np.random.default_rng(0), 0
    for _ in range(30):
        assert np.array_equal(obs, expected)
        actions = draws.uniform(-1, 1, (3, 2)).astype(np.float32)
        actions[0] = np.clip((np.array(GOALS[0]) - obs[0]) / 0.1, -1, 1)
        obs, reward, done, infos = ours.step(actions)
        expected, their_reward, their_done, their_infos = theirs.step(actions)
        assert np.array_equal(reward, their_reward)
        assert np.array_equal(done, their_done)
        for a, b in zip(infos, their_infos, strict=True):
            assert {"task", "success", "is_success", "diverged"} <= a.keys()
            assert a.keys() ^ b.keys() <= {"TimeLimit.truncated"}, "ours says it at the end alone"
            for name in ("terminal_observation", "TimeLimit.truncated", "is_success"):
                if "terminal_observation" in b:
                    assert np.array_equal(a[name], b[name])
            if "episode" in b:
                ends += 1
                assert a["episode"]["l"] == b["episode"]["l"]
                assert a["episode"]["r"] == pytest.approx(b["episode"]["r"], abs=1e-4)
    assert ends >= 9
    assert infos[0]["is_success"] in (True, False)


def test_its_learner_improves_on_the_batched_environment() -> None:
    env = VecNormalize(VecMonitor(SB3VecEnv("navigation", 16, task=GOALS[0], horizon=20)))
    model = PPO("MlpPolicy", env, n_steps=20, batch_size=80, learning_rate=3e-3, seed=0, device="cpu")
    before, _ = evaluate_policy(model, env, 16, warn=False)
    model.learn(20 * 16 * 8)
    after, _ = evaluate_policy(model, env, 16, warn=False)
    assert float(after) > float(before) + 1.0


def test_attributes_methods_and_seeds_are_its_own() -> None:
    env = SB3VecEnv("half_cheetah_vel", 4, num_tasks=2, num_threads=1)
    env.seed(3)
    first, tasks = env.reset(), env.get_attr("task", indices=[0, 3])
    assert tasks == [env.reset_infos[0]["task"], env.reset_infos[3]["task"]]
    env.seed(3)
    assert np.array_equal(env.reset(), first)
    env.set_options({"task": 1.25})
    env.reset()
    assert env.get_attr("task") == [1.25] * 4
    assert env.env_method("get_attr", "horizon", indices=1) == [(200,) * 4]
    assert env.env_is_wrapped(Monitor) == [False] * 4
    assert env.get_images() == [None] * 4
    with pytest.raises(BadField, match="horizon is an attribute that all worlds share"):
        env.set_attr("horizon", 3)
    with pytest.raises(BadField, match="autoreset_mode is 'DISABLED'"):
        SB3VecEnv("navigation", autoreset_mode="DISABLED")
    env.close()


def test_new_tasks_are_drawn_when_all_episodes_end() -> None:
    env = SB3VecEnv("half_cheetah_vel", 2, horizon=3, redraw=True, num_threads=1)
    env.seed(0)
    first = env.reset_infos, env.reset(), env.get_attr("task")
    for t in range(3):
        obs, _, done, infos = env.step(np.zeros((2, 6), np.float32))
        assert done.all() == (t == 2)
        assert [info["task"] for info in infos] == first[2], "those of the episode that ends"
    assert env.get_attr("task") != first[2]
    assert "terminal_observation" in infos[0]
    assert not np.array_equal(obs, infos[0]["terminal_observation"])


def test_it_is_faster_than_a_loop_of_single_environments() -> None:
    """CPU seconds of 32 half-cheetahs."""

    def seconds(env: Any) -> float:
        env.reset()
        actions = np.zeros((32, 6), np.float32)
        env.step(actions)
        began = time.process_time()
        for _ in range(5):
            env.step(actions)
        return time.process_time() - began

    loop = DummyVecEnv([lambda: GymnasiumEnv("half_cheetah_dir")] * 32)
    assert seconds(loop) > 3 * seconds(SB3VecEnv("half_cheetah_dir", 32, num_threads=1))


def test_the_page_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "other_libraries.md"
    found = [
        code
        for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
        if "stable_baselines3" in code
    ]
    assert found
    exec(compile("".join(found), str(page), "exec"), {})


# --- trials


@pytest.mark.parametrize(("name", "episodes"), [("bandit", 4), ("navigation", 2), ("cartpole_mass", 2)])
def test_trials_pass_its_check(name: str, episodes: int) -> None:
    env_checker.check_env(TrialWrapper(GymnasiumEnv(name), episodes))


def test_a_trial_tells_what_happened_and_keeps_the_task() -> None:
    env = TrialWrapper(GymnasiumEnv("navigation", horizon=3), episodes=2)
    obs, info = env.reset(seed=0)
    task = info["task"]
    assert obs.tolist() == [0.0] * 6
    total = 0.0
    for t in range(6):
        action = np.array([0.5, -1.0], np.float32)
        obs, reward, terminated, truncated, info = env.step(action)
        assert obs[2:].tolist() == [0.5, -1.0, np.float32(reward), float(t in (2, 5))]
        assert obs[:2] == pytest.approx([0.0, 0.0] if t == 2 else [0.05 * (t % 3 + 1), -0.1 * (t % 3 + 1)])
        assert (terminated, truncated, info["episode_of_trial"]) == (t == 5, False, (t + 1) // 3)
        assert np.array_equal(info["task"], task)
        total += reward
    assert not np.array_equal(env.reset()[1]["task"], task), "the next trial is of another task"
    with pytest.raises(BadField, match="episodes is 0"):
        TrialWrapper(GymnasiumEnv("navigation"), 0)


def test_a_choice_is_told_as_one_hot() -> None:
    env = TrialWrapper(GymnasiumEnv("bandit", task=[0, 0, 1, 0, 0]), episodes=3)
    env.reset(seed=0)
    obs, *_ = env.step(2)
    assert obs.tolist() == [1.0, 0, 0, 1, 0, 0, 1.0, 1.0]


@pytest.mark.slow
def test_recurrent_ppo_is_rl2_on_trials_of_bandits() -> None:
    """Ten pulls of five arms: chance earns 5, the best possible 6.66 (Gittins), Duan et al.'s RL² 6.7."""
    from sb3_contrib import RecurrentPPO

    env: Any = make_vec_env(lambda: TrialWrapper(GymnasiumEnv("bandit"), episodes=10), n_envs=32, seed=0)
    options: dict[str, Any] = {"lstm_hidden_size": 32, "net_arch": []}
    model = RecurrentPPO(
        "MlpLstmPolicy", env, n_steps=40, batch_size=320, n_epochs=4, learning_rate=5e-3, gae_lambda=0.3, ent_coef=0.01,
        seed=0, device="cpu", policy_kwargs=options,
    )  # fmt: skip
    model.learn(120_000)
    after, _ = evaluate_policy(model, env, 1000, deterministic=False, warn=False)
    assert float(after) > 5.9, after
