"""Bandits: payoffs by their probabilities, one pull an episode, nothing of the task in the observation."""

import io
import math

import pytest
import torch
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.envs.small.bandit import Bandit
from metarl.envs.worlds import BatchedTaskEnv

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_env(probability: list[list[float]], num_envs: int, *, seed: int = 0, horizon: int = 1) -> BatchedTaskEnv:
    task = Bandit(horizon=horizon, arms=len(probability[0]))
    env = task.make(len(probability), num_envs, seed=seed)
    env.set_tasks(torch.tensor(probability))
    env.reset()
    return env


def pull(env: BatchedTaskEnv, arm: int) -> Tensor:
    """Rewards [task env] of that arm in every world."""
    action = torch.zeros(env.num_tasks, env.num_envs, env.spec.action_dim)
    action[..., arm] = 1.0
    return env.step(action).reward


def random_actions(env: BatchedTaskEnv, seed: int) -> Tensor:
    arm = torch.randint(env.spec.action_dim, (env.num_tasks, env.num_envs), generator=seeded(seed))
    return torch.nn.functional.one_hot(arm, env.spec.action_dim).float()


def test_payoffs_have_the_probability_of_their_arm():
    """10,000 pulls of each of 3 arms of 2 bandits, within five standard deviations; and nothing but 1 and 0."""
    probability = [[0.1, 0.5, 0.8], [0.9, 0.3, 0.05]]
    env = make_env(probability, 10_000)
    for arm in range(3):
        reward = pull(env, arm)
        assert (reward.eq(0) | reward.eq(1)).all()
        for task in range(2):
            p = probability[task][arm]
            assert abs(reward[task].mean().item() - p) < 5 * math.sqrt(p * (1 - p) / 10_000)


def test_an_arm_that_never_pays_and_one_that_always_does():
    env = make_env([[0.0, 1.0]], 50_000)
    assert pull(env, 0).eq(0).all()
    assert pull(env, 1).eq(1).all()


def test_pulls_are_independent_of_each_other():
    """Worlds side by side, and one world's pulls in succession: 20 x 2,000 pairs, correlation within 5 / 200."""
    env = make_env([[0.5, 0.5]], 2_000)
    reward = torch.stack([pull(env, 0)[0] for _ in range(20)])
    for x, y in ((reward[:-1], reward[1:]), (reward[:, :-1], reward[:, 1:])):
        pair = torch.stack([x.flatten(), y.flatten()])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 5 / math.sqrt(pair.shape[1])


def test_the_probabilities_of_a_task_are_uniform_and_independent():
    """Mean 1/2, variance 1/12 with standard error sqrt((1/80 - 1/144) / n), no correlation between arms."""
    task = Bandit(arms=5).sample(40_000, seeded())
    assert task.shape == (40_000, 5)
    assert task.min() >= 0
    assert task.max() < 1
    assert (task.mean(0) - 0.5).abs().max() < 5 * math.sqrt(1 / 12 / 40_000)
    assert (task.var(0) - 1 / 12).abs().max() < 5 * math.sqrt((1 / 80 - 1 / 144) / 40_000)
    correlation = torch.corrcoef(task.T) - torch.eye(5)
    assert correlation.abs().max() < 5 / 200


def test_each_pull_is_an_episode():
    env = make_env([[0.2, 0.7]], 3)
    for _ in range(5):
        assert env.clock.eq(0).all()
        step = env.step(random_actions(env, 0))
        assert step.truncated.all()
        assert not step.terminated.any()
        assert not step.success.any()
        assert not step.diverged.any()


def test_episodes_of_several_pulls():
    env = make_env([[0.2, 0.7]], 3, horizon=4)
    truncated = [env.step(random_actions(env, 0)).truncated.all().item() for _ in range(8)]
    assert truncated == 2 * [False, False, False, True]


def test_the_observation_is_1_whatever_the_task_the_arm_and_the_reward():
    env = make_env([[0.0, 0.0], [1.0, 1.0], [0.3, 0.6]], 4)
    assert env.spec.obs_dim == 1
    assert torch.equal(env.reset(), torch.ones(3, 4, 1))
    for arm in (0, 1, 1):
        action = torch.zeros(3, 4, 2)
        action[..., arm] = 1.0
        step = env.step(action)
        assert step.obs.eq(1).all()
        assert step.next_obs.eq(1).all()


# --- seeds, state and neighbours ------------------------------------------------------------------


def play(env: BatchedTaskEnv, num_steps: int, *, seed: int) -> Tensor:
    """Rewards [task env time] of random arms."""
    return torch.stack([env.step(random_actions(env, seed + t)).reward for t in range(num_steps)], dim=-1)


def test_seeds_determine_the_payoffs():
    first, again, other = (play(make_env([[0.4, 0.6]], 50, seed=seed), 20, seed=0) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_saved_environment_goes_on_exactly_where_it_was():
    env = make_env([[0.4, 0.6], [0.5, 0.1]], 50, horizon=3)
    play(env, 4, seed=0)
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    expected, clock = play(env, 10, seed=9), env.clock
    file.seek(0)
    fresh = Bandit(horizon=3, arms=2).make(2, 50, seed=123)  # other tasks, another generator
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(play(fresh, 10, seed=9), expected)
    assert torch.equal(fresh.clock, clock)
    # negative control: the tasks alone do not bring the payoffs back
    other = Bandit(horizon=3, arms=2).make(2, 50, seed=123)
    other.set_tasks(torch.tensor([[0.4, 0.6], [0.5, 0.1]]))
    other.reset()
    assert not torch.equal(play(other, 10, seed=9), expected)


def test_what_was_saved_does_not_change_as_the_environment_goes_on():
    env = make_env([[0.4, 0.6]], 20)
    state = env.state_dict()
    expected = play(env, 5, seed=0)
    env.set_tasks(torch.tensor([[0.0, 0.0]]))
    env.reset()
    play(env, 5, seed=0)
    for _ in range(2):  # nor does loading it hand it out to be changed
        env.load_state_dict(state)
        assert torch.equal(play(env, 5, seed=0), expected)


def test_the_number_of_worlds_does_not_change_the_tasks():
    """Tasks drawn between the steps of 1 or 7 worlds a task are the same ones."""
    found = []
    for num_envs in (1, 7):
        distribution, generator = Bandit(arms=3), seeded()
        env = distribution.make(4, num_envs, seed=0)
        tasks = []
        for _ in range(3):
            tasks.append(distribution.sample(4, generator))
            env.set_tasks(tasks[-1])
            env.reset()
            play(env, 5, seed=0)
        found.append(torch.stack(tasks))
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], found[0][1])


def test_tasks_side_by_side_do_not_influence_each_other():
    """Task 0 keeps its bits whatever its neighbour is and does; the neighbour pays by its own probabilities."""
    rewards = []
    for neighbour in ([0.5, 0.5], [0.0, 1.0]):
        env = make_env([[0.4, 0.6], neighbour], 30)
        found = []
        for t in range(10):
            action = random_actions(env, t)
            action[1] = torch.tensor([1.0, 0.0] if neighbour[0] == 0 else [0.0, 1.0])
            found.append(env.step(action).reward)
        rewards.append(torch.stack(found))
    assert torch.equal(rewards[0][:, 0], rewards[1][:, 0])
    assert rewards[0][:, 1].mean() > 0.3
    assert rewards[1][:, 1].eq(0).all()


# --- definitions ----------------------------------------------------------------------------------


def test_presets_are_the_numbers_of_arms_in_the_paper():
    assert {name: preset.arms for name, preset in Bandit.presets.items()} == {"k5": 5, "k10": 10, "k50": 50}
    task = find_preset("bandit", "k10")
    assert task.horizon == 1
    assert task.spec.discrete
    assert task.spec.action_dim == 10
    assert not task.spec.terminates


@pytest.mark.parametrize("options", [{"arms": 1}, {"arms": 0}, {"horizon": 0}])
def test_a_bad_field_is_named(options: dict):
    (name,) = options
    with pytest.raises(BadField, match=f"{name} is {options[name]}"):
        Bandit(**options)
