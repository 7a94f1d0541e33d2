"""Meta-World, batched: its goals, benchmarks, kept starts, and worlds of several tasks stepped together."""

import pickle

import metaworld
import mujoco
import numpy as np
import pytest
import torch
from metaworld import SawyerXYZEnv, env_dict
from official_metaworld import official
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.envs.metaworld import ML1, ML10, ML25, ML45, MT1, MT10, MT25, MT50, resets
from metarl.envs.metaworld.goals import draw_goals
from metarl.envs.metaworld.sawyer import SAWYER
from metarl.envs.metaworld.worlds import ENVIRONMENTS
from metarl.envs.registry import TaskDistribution, find_preset
from metarl.envs.worlds import BatchedTaskEnv

pytestmark = pytest.mark.usefixtures("one_thread")
BENCHMARKS = (ML10(), ML25(), ML45(), MT10(), MT25(), MT50(), ML1(env="push-v3"), MT1(env="push-v3"))


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):
    """The disk's cache of starts is this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(*names: str, goal: int = 0) -> Tensor:
    """A task of each environment."""
    return torch.stack([ML1(env=name).train_goals[name][goal] for name in names])


def play(env: BatchedTaskEnv, actions: Tensor) -> list:
    return [env.step(action) for action in actions]


def random_actions(env: BatchedTaskEnv, steps: int, seed: int = 0) -> Tensor:
    shape = (steps, env.num_tasks, env.num_envs, 4)
    return 2 * torch.rand(shape, generator=seeded(seed)) - 1


def equal_steps(first: list, second: list) -> bool:
    return all(torch.equal(x, y) for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True))


def stay(env: SawyerXYZEnv, steps: int = 50) -> None:
    """In place of letting the arm settle."""
    mujoco.mj_forward(env.model, env.data)
    env.init_tcp = env.tcp_center


@pytest.mark.parametrize(
    "benchmark",
    [metaworld.ML10, pytest.param(metaworld.ML45, marks=pytest.mark.slow)],
    ids=lambda benchmark: benchmark.__name__,
)
def test_goals_are_metaworlds_own(benchmark: type, monkeypatch: pytest.MonkeyPatch):
    """Every random vector of the official benchmark, built without letting its arms settle, which draws nothing."""

    monkeypatch.setattr(SawyerXYZEnv, "_reset_hand", stay)
    theirs = benchmark(seed=3)
    ours = {"ML10": ML10, "ML45": ML45}[benchmark.__name__](goal_seed=3)
    for tasks, goals in ((theirs.train_tasks, ours.train_goals), (theirs.test_tasks, ours.test_goals)):
        assert list(dict.fromkeys(task.env_name for task in tasks)) == list(goals)
        for name, parameter in goals.items():
            vecs = np.stack([_vec(task) for task in tasks if task.env_name == name])
            assert np.array_equal(parameter[:, 1 : 1 + vecs.shape[1]].numpy(), vecs)
            assert (parameter[:, 1 + vecs.shape[1] :] == 0).all()
            assert (parameter[:, 0] == ENVIRONMENTS.index(name)).all()


def _vec(task: metaworld.Task) -> np.ndarray:
    return pickle.loads(task.data)["rand_vec"]


def test_ml1_tests_on_the_goals_of_the_next_seed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SawyerXYZEnv, "_reset_hand", stay)
    theirs, ours = metaworld.ML1("push-v3", seed=5), ML1(env="push-v3", goal_seed=5)
    for tasks, goals in ((theirs.train_tasks, ours.train_goals), (theirs.test_tasks, ours.test_goals)):
        assert np.array_equal(goals["push-v3"][:, 1:].numpy(), np.stack([_vec(task) for task in tasks]))


@pytest.mark.parametrize("benchmark", [ML10, ML25, ML45, MT10, MT25, MT50])
def test_environments_are_metaworlds(benchmark: type[TaskDistribution]):
    """And in its order, on which the goals depend; ML25 leaves out the one it would both train and test on."""
    theirs = getattr(env_dict, f"{benchmark.__name__}_V3")
    if benchmark.show_goal:
        assert benchmark.train_environments == benchmark.test_environments == tuple(theirs)
        return
    assert benchmark.train_environments == tuple(theirs["train"])
    leak = {"basketball-v3"} if benchmark is ML25 else set()
    assert leak == set(theirs["train"]) & set(theirs["test"])
    assert benchmark.test_environments == tuple(name for name in theirs["test"] if name not in leak)


@pytest.mark.parametrize("benchmark", BENCHMARKS[:3] + BENCHMARKS[6:7], ids=lambda b: b.name)
def test_no_test_task_is_trained_on(benchmark: TaskDistribution):
    train = torch.cat(list(benchmark.train_goals.values()))
    test = torch.cat(list(benchmark.test_goals.values()))
    assert len(torch.unique(torch.cat([train, test]), dim=0)) == len(train) + len(test)
    sampled = {tuple(row) for row in benchmark.sample(200, seeded()).tolist()}
    assert sampled <= {tuple(row) for row in train.tolist()}
    held_out = {tuple(row) for row in benchmark.published_tasks(50).tolist()}
    assert len(held_out) == 50
    assert held_out <= {tuple(row) for row in test.tolist()}


def test_a_meta_batch_has_equally_many_tasks_of_each_environment():
    labels = ML10().labels(ML10().sample(20, seeded()))
    assert [labels.count(name) for name in ML10.train_environments] == [2] * 10
    few = ML10().labels(ML10().sample(13, seeded()))
    assert sorted(few.count(name) for name in ML10.train_environments) == [1] * 7 + [2] * 3
    others = ML10().labels(ML10().sample(13, seeded(1)))
    assert sorted(few) != sorted(others)


def test_goals_are_drawn_without_replacement_until_all_were_taken():
    goals = ML1().sample(50, seeded())
    assert len(torch.unique(goals, dim=0)) == 50
    assert len(torch.unique(ML1().sample(100, seeded()), dim=0)) == 50
    assert not torch.equal(goals, ML1().sample(50, seeded(1)))


def test_bad_fields_are_named():
    with pytest.raises(BadField, match="env is 'reach': use one of assembly-v3"):
        ML1(env="reach")
    with pytest.raises(BadField, match="tasks is 251: ml10 has 250 test tasks"):
        ML10().published_tasks(251)
    with pytest.raises(BadField, match="goal_seed is -1"):
        ML10(goal_seed=-1)
    env = ML1().make(1, 1, seed=0)
    with pytest.raises(RuntimeError, match="set_tasks"):
        env.reset()
    with pytest.raises(BadField, match="task begins with 50, the environment: use 0 to 49"):
        env.set_tasks(torch.full((1, 7), 50.0))


def test_presets_are_the_versions_of_the_reward():
    assert find_preset("ml1") == ML1(env="reach-v3", reward="v2")
    assert find_preset("ml10", "v1") == ML10(reward="v1")


def test_the_goal_is_hidden():
    """Worlds that differ in nothing but the goal observe the same, wherever their hand goes; MT sees the difference."""
    vec = torch.tensor([0.0, 0.65, 0.02, -0.1, 0.8, 0.1, 0.0, 0.65, 0.02, 0.1, 0.9, 0.3], dtype=torch.float64)
    task = torch.cat([torch.full((2, 1), ENVIRONMENTS.index("reach-v3")), vec.view(2, 6)], dim=1)
    for benchmark, hidden in ((ML1(), True), (MT1(), False)):
        env = benchmark.make(2, 1, seed=0)
        env.set_tasks(task)
        obs = env.reset()
        actions = random_actions(env, 30)[:, :1].expand(-1, 2, -1, -1)
        steps = play(env, actions)
        assert torch.equal(obs[0], obs[1]) == hidden
        assert all(torch.equal(step.obs[0], step.obs[1]) == hidden for step in steps)
        assert all(torch.equal(step.obs[0, :, :36], step.obs[1, :, :36]) for step in steps)
        assert not torch.equal(steps[-1].reward[0], steps[-1].reward[1])
        if not hidden:
            torch.testing.assert_close(obs[:, 0, 36:].double(), vec.view(2, 6)[:, 3:], atol=1e-7, rtol=0)


def test_worlds_of_several_tasks_do_not_influence_each_other():
    """Stepped together or each alone, to the same bits."""
    names = ("push-v3", "drawer-open-v3", "reach-v3")
    task = parameters(*names)
    together = ML10().make(3, 2, seed=0)
    together.set_tasks(task)
    together.reset()
    actions = random_actions(together, 40)
    steps = play(together, actions)
    for i in range(3):
        alone = ML10().make(1, 2, seed=1)
        alone.set_tasks(task[i : i + 1])
        alone.reset()
        for ours, theirs in zip(steps, play(alone, actions[:, i : i + 1]), strict=True):
            for x, y in zip(ours, theirs, strict=True):
                assert torch.equal(x[i : i + 1], y), names[i]


def test_tasks_may_change_places_and_numbers():
    """The same goal gives the same steps wherever its worlds lie and whatever was played before."""
    env = ML10().make(4, 1, seed=0)
    task = parameters("push-v3", "drawer-open-v3", "reach-v3", "push-v3")
    env.set_tasks(task)
    env.reset()
    actions = random_actions(env, 10)
    first = play(env, actions)
    order = torch.tensor([2, 2, 1, 0])
    env.set_tasks(task[order])
    env.reset()
    for before, after in zip(first, play(env, actions[:, order]), strict=True):
        assert all(torch.equal(x[order], y) for x, y in zip(before, after, strict=True))


def test_episodes_end_by_time_alone_and_begin_again_where_they_began():
    env = ML1(env="drawer-open-v3", horizon=7).make(2, 2, seed=0)
    env.set_tasks(ML1(env="drawer-open-v3").sample(2, seeded()))
    first = env.reset()
    steps = play(env, random_actions(env, 7))
    assert not any(step.terminated.any() for step in steps)
    assert [bool(step.truncated.all()) for step in steps] == [False] * 6 + [True]
    assert torch.equal(steps[-1].obs, first)
    assert not torch.equal(steps[-1].next_obs, first)


def test_a_reset_of_some_worlds_leaves_the_others():
    env = ML1(env="push-v3").make(1, 3, seed=0)
    env.set_tasks(ML1(env="push-v3").sample(1, seeded()))
    env.reset()
    play(env, random_actions(env, 20))
    before = env.worlds.observe().clone()
    env.worlds.reset(torch.tensor([False, True, False]), seeded())
    after = env.worlds.observe()
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


def test_resumes_to_equal_bits():
    """From the saved state of an environment that then went on, in a new one."""
    benchmark = ML10()
    env = benchmark.make(3, 1, seed=0)
    env.set_tasks(parameters("push-v3", "drawer-open-v3", "reach-v3"))
    env.reset()
    play(env, random_actions(env, 15))
    state = env.state_dict()
    actions = random_actions(env, 15, seed=1)
    expected = play(env, actions)
    other = benchmark.make(3, 1, seed=9)
    other.load_state_dict(state)
    assert equal_steps(play(other, actions), expected)


def test_an_environment_saved_before_it_had_tasks_is_restored():
    """As in the first checkpoint of a run."""
    env, other = ML10().make(3, 1, seed=0), ML10().make(3, 1, seed=9)
    other.load_state_dict(env.state_dict())
    for each in (env, other):
        each.set_tasks(parameters("push-v3", "drawer-open-v3", "reach-v3"))
    assert torch.equal(env.reset(), other.reset())


def test_float32_follows_float64():
    """Observations leave in float32 and are the float64 ones, rounded."""
    env = ML1().make(1, 1, seed=0)
    env.set_tasks(ML1().sample(1, seeded()))
    assert env.reset().dtype == torch.float32


def test_rewards_of_version_1_are_larger():
    for reward, scale in (("v2", 10.0), ("v1", 1000.0)):
        benchmark = ML1(env="reach-v3", reward=reward)
        env = benchmark.make(1, 1, seed=0)
        env.set_tasks(benchmark.sample(1, seeded()))
        env.reset()
        found = play(env, random_actions(env, 5))[-1].reward.item()
        assert 0 < found < scale


def test_a_start_does_not_depend_on_the_goals_simulated_before():
    task, vecs = SAWYER["drawer-open-v3"], draw_goals(("drawer-open-v3",), 0)["drawer-open-v3"]
    alone = resets.simulate(task, vecs[3])
    resets.simulate(task, vecs[1])
    again = resets.simulate(task, vecs[3])
    assert all(np.array_equal(alone[name], again[name]) for name in alone)


def test_the_official_environment_starts_where_ours_does_in_its_second_episode():
    """Later episodes of one official environment begin where its first did, as ours do."""
    vec = draw_goals(("push-v3",), 0)["push-v3"][0]
    env = official("push-v3", vec)
    first, _ = env.reset()
    for _ in range(3):
        env.step(np.ones(4))
    assert np.array_equal(env.reset()[0], first)
