"""When the worlds of a vector environment begin anew, what they tell by world, and seeds of worlds that stay."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics
from torch import Tensor

from metarl.envs import camera
from metarl.envs.fields import BadField
from metarl.envs.gymnasium_env import GymnasiumEnv
from metarl.envs.registry import TASKS, TaskDistribution, find_preset
from metarl.envs.vector_env import TaskVectorEnv
from metarl.envs.worlds import BatchedTaskEnv

pytestmark = pytest.mark.usefixtures("one_thread")
GOALS = [[0.35, 0.2], [-0.4, 0.1], [0.05, -0.45]]
FAMILIES = ["navigation", "bandit", "tabular_mdp", "half_cheetah_rand_params", "cartpole_mass", "ant_goal", "ml10"]


def to_the_goals(obs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The first world walks to its goal and terminates, the others wander."""
    actions = generator.uniform(-1, 1, (3, 2)).astype(np.float32)
    actions[0] = np.clip((np.array(GOALS[0]) - obs[0]) / 0.1, -1, 1)
    return actions


def same(ours: Any, theirs: Any) -> None:
    """Equal, in infos what theirs have; of a world that has just begun Gymnasium's single one tells the task alone."""
    if isinstance(theirs, dict):
        for name in theirs:
            same(ours[name], theirs[name])
    else:
        assert np.asarray(ours).tolist() == np.asarray(theirs).tolist()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_worlds_begin_anew_where_those_of_gymnasium_do(mode: AutoresetMode) -> None:
    """Episodes of at most 7 steps; in DISABLED mode a world that ended is reset by a mask."""
    singles = [lambda goal=goal: GymnasiumEnv("navigation", task=goal, horizon=7) for goal in GOALS]
    theirs: Any = SyncVectorEnv(singles, autoreset_mode=mode)
    ours = TaskVectorEnv("navigation", 3, task=GOALS, horizon=7, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] == ours.autoreset_mode == mode
    draws, ends = np.random.default_rng(0), 0
    (obs, _), (expected, _) = ours.reset(seed=0), theirs.reset(seed=0)
    for _ in range(30):
        same(obs, expected)
        actions = to_the_goals(obs, draws)
        found, wanted = ours.step(actions), theirs.step(actions)
        for a, b in zip(found, wanted, strict=True):
            same(a, b)
        obs, expected = found[0], wanted[0]
        over = found[2] | found[3]
        ends += int(over.sum())
        if mode == AutoresetMode.DISABLED and over.any():
            (obs, info), (expected, _) = (env.reset(options={"reset_mask": over}) for env in (ours, theirs))
            assert info["_task"].tolist() == over.tolist()
    assert ends >= 3 * 3


def test_a_world_that_waits_for_its_reset_is_no_fault() -> None:
    """In the step between two episodes its physics may do what it likes."""
    env = TaskVectorEnv("cartpole_mass", 4, horizon=5, autoreset_mode="next_step", num_threads=1)
    env.reset(seed=0)
    lengths = np.zeros(4, int)
    for t in range(24):
        *_, terminated, truncated, info = env.step(np.zeros(4, np.int64))
        lengths = lengths + 1
        assert (terminated | truncated).all() == (t % 6 == 4), "5 steps, and one that begins anew"
        assert info["_task"].all()
    assert int(env._env.num_diverged) == 0


def test_what_a_restart_draws_is_the_worlds_own_and_repeats() -> None:
    firsts = []
    for others in (False, True):
        env = TaskVectorEnv("half_cheetah_vel", 3, horizon=9, autoreset_mode="disabled", num_threads=1)
        env.reset(seed=4)
        env.step(np.zeros((3, 6), np.float32))
        mask = np.array([True, others, False])
        before = env.step(np.zeros((3, 6), np.float32))[0]
        first, _ = env.reset(options={"reset_mask": mask})
        assert np.array_equal(first[2], before[2])
        twin = copy.deepcopy(env)
        again, _ = env.reset(options={"reset_mask": mask})
        assert not np.array_equal(again[0], first[0]), "another first state"
        assert np.array_equal(twin.reset(options={"reset_mask": mask})[0], again)
        firsts.append((first[0], again[0]))
    assert np.array_equal(firsts[0], firsts[1])


def test_vectors_refuse_what_they_cannot_begin() -> None:
    with pytest.raises(BadField, match="autoreset_mode is 'never': use one of NEXT_STEP, SAME_STEP, DISABLED"):
        TaskVectorEnv("navigation", autoreset_mode="never")
    env = TaskVectorEnv("navigation", 2, horizon=1, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(gymnasium.error.ResetNeeded, match="for all worlds first"):
        env.reset(options={"reset_mask": np.ones(2, np.bool_)})
    env.reset()
    env.step(np.zeros((2, 2)))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"worlds \[1\] are over"):
        env.step(np.zeros((2, 2)))
    for mask in ([True, True], np.ones(3, np.bool_), np.ones(2), np.zeros(2, np.bool_)):
        with pytest.raises(BadField, match="use an array of 2 booleans, at least one of them True"):
            env.reset(options={"reset_mask": mask})
    with pytest.raises(BadField, match="reset_mask was given with task"):
        env.reset(options={"reset_mask": np.ones(2, np.bool_), "task": GOALS[0]})
    with pytest.raises(BadField, match="reset_mask was given with a seed"):
        env.reset(seed=1, options={"reset_mask": np.ones(2, np.bool_)})


def test_gymnasiums_vector_wrappers_normalize_and_count() -> None:
    """Running mean and deviation against those of all that was seen."""
    envs: Any = gymnasium.make_vec("metarl/HalfCheetahDir-v0", num_envs=4, horizon=6, autoreset_mode="NEXT_STEP")
    plain: Any = gymnasium.make_vec("metarl/HalfCheetahDir-v0", num_envs=4, horizon=6, autoreset_mode="NEXT_STEP")
    envs = NormalizeObservation(RecordEpisodeStatistics(envs))
    seen = [plain.reset(seed=0)[0]]
    envs.reset(seed=0)
    plain.action_space.seed(0)
    for _ in range(20):
        actions = plain.action_space.sample()
        obs, *_ = envs.step(actions)
        seen.append(plain.step(actions)[0])
    rows = np.concatenate(seen)
    np.testing.assert_allclose(envs.obs_rms.mean, rows.mean(0), atol=1e-3)
    np.testing.assert_allclose(envs.obs_rms.var, rows.var(0), atol=1e-2, rtol=0.02)
    np.testing.assert_allclose(obs, (seen[-1] - envs.obs_rms.mean) / np.sqrt(envs.obs_rms.var + 1e-8), atol=1e-3)
    assert list(envs.env.length_queue) == [6] * 12
    with pytest.raises(ValueError, match="NEXT_STEP"):
        NormalizeObservation(gymnasium.make_vec("metarl/HalfCheetahDir-v0", num_envs=4))


def test_attributes_are_told_by_world() -> None:
    env = TaskVectorEnv("half_cheetah_vel", 4, num_tasks=2, task=[0.5, 1.5])
    with pytest.raises(gymnasium.error.ResetNeeded, match="no task"):
        env.get_attr("task")
    env.reset(seed=0)
    assert env.get_attr("task") == (0.5, 0.5, 1.5, 1.5)
    assert env.get_attr("action_space") == (env.single_action_space,) * 4
    assert env.get_attr("horizon") == (200,) * 4
    assert env.call("render") == (None,) * 4
    assert env.call("in_words", torch.tensor(0.5))[3] == find_preset("half_cheetah_vel").in_words(torch.tensor(0.5))
    with pytest.raises(AttributeError):
        env.get_attr("weather")


def test_a_vector_draws_each_world_as_a_single_one_does() -> None:
    if camera.find_backend() is None:
        pytest.skip("no OpenGL on this machine")
    env = TaskVectorEnv("pendulum_mass", 2, render_mode="rgb_array", num_threads=1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.render()
    env.reset(seed=0)
    pictures = env.render()
    assert pictures is not None
    assert [picture.shape for picture in pictures] == [(480, 480, 3)] * 2
    assert not np.array_equal(*pictures), "each is in a state of its own"
    single = GymnasiumEnv("pendulum_mass", render_mode="rgb_array")
    single.reset(seed=0)
    single._pose = env._env.worlds.pose(1).double().numpy()
    assert np.array_equal(single.render(), pictures[1])
    copy.deepcopy(env).close()
    env.close()


# --- seeds


def played(env: BatchedTaskEnv, tasks: TaskDistribution) -> list[Tensor]:
    """Tasks, first states and what follows, over the end of an episode."""
    env.set_tasks(tasks.sample(2, torch.Generator().manual_seed(1)))
    found, generator = [env.reset()], torch.Generator().manual_seed(2)
    for _ in range(5):
        draw = torch.rand(2, 2, env.spec.action_dim, generator=generator)
        chosen = torch.nn.functional.one_hot(draw.argmax(-1), draw.shape[-1]).float()
        step = env.step(chosen if env.spec.discrete else 2 * draw - 1)
        found += [step.obs, step.next_obs, step.reward]
    return [*found, env.faults.clone(), env.num_diverged.clone()]


@pytest.mark.parametrize("name", FAMILIES)
def test_worlds_that_are_seeded_are_as_new(name: str) -> None:
    tasks: Any = find_preset(name, horizon=1 if name == "bandit" else 3)
    old, new = (tasks.make(2, 2, seed=seed, num_threads=1) for seed in (5, 6))
    played(old, tasks)
    if hasattr(old.worlds, "physics"):
        old.worlds.physics.bind("qpos")[0] = torch.nan  # and what went before leaves no trace
        played(old, tasks)
    assert old.seed(6)
    with pytest.raises(gymnasium.error.ResetNeeded):
        old.step(torch.zeros(2, 2, old.spec.action_dim))
    for a, b in zip(played(old, tasks), played(new, tasks), strict=True):
        assert torch.equal(a, b)
    assert old.num_overflowed == 0


def test_a_seeded_reset_builds_no_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """To build half-cheetahs took 4 ms of the 5 that such a reset took."""
    for env in (GymnasiumEnv("half_cheetah_vel"), TaskVectorEnv("half_cheetah_vel", 2)):
        first, info = env.reset(seed=3)
        with monkeypatch.context() as patch:
            patch.setattr(type(env.tasks), "make", None)
            env.reset(seed=8)
            again, task = env.reset(seed=3)
        assert np.array_equal(first, again)
        assert np.array_equal(info["task"], task["task"])


def test_worlds_of_ones_own_that_cannot_be_seeded_are_built_anew() -> None:
    env = find_preset("navigation").make(1, 1, seed=0)

    class Plain:
        """The worlds without ``seed``."""

        def __init__(self, worlds: Any) -> None:
            self.reset, self.observe = worlds.reset, worlds.observe

    env.worlds = Plain(env.worlds)
    assert not env.seed(1)
    assert "navigation" in TASKS
