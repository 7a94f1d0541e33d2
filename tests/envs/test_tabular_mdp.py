"""Random MDPs: tasks by the moments of their distributions, steps by the frequencies of what they lead to."""

import io
import math

import pytest
import torch
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.envs.worlds import BatchedTaskEnv

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_env(definition: TabularMDP, task: Tensor, num_envs: int, *, seed: int = 0) -> BatchedTaskEnv:
    env = definition.make(len(task), num_envs, seed=seed)
    env.set_tasks(task)
    env.reset()
    return env


def random_actions(env: BatchedTaskEnv, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(env.spec.action_dim, (env.num_tasks, env.num_envs), generator=generator)
    return torch.nn.functional.one_hot(chosen, env.spec.action_dim).float()


def play(env: BatchedTaskEnv, num_steps: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Rewards [task env time] and observations [task env time state] of random actions."""
    generator = seeded(seed)
    steps = [env.step(random_actions(env, generator)) for _ in range(num_steps)]
    return torch.stack([s.reward for s in steps], dim=2), torch.stack([s.obs for s in steps], dim=2)


def certain(num_actions: int, next_state: list[int], reward: list[float]) -> Tensor:
    """An MDP in which state s leads to ``next_state[s]`` and pays ``reward[s]`` on average, whatever is done."""
    num_states = len(next_state)
    transition = torch.eye(num_states)[torch.tensor(next_state)].unsqueeze(1).expand(-1, num_actions, -1)
    mean = torch.tensor(reward).view(-1, 1, 1).expand(-1, num_actions, -1)
    return torch.cat([transition, mean], dim=-1)


# --- tasks ----------------------------------------------------------------------------------------


def test_transitions_are_draws_of_a_flat_dirichlet():
    """150,000 rows over S = 10 states: mean 1/S, variance (S-1) / (S^2 (S+1)), covariance -1 / (S^2 (S+1)).

    A row normalized from other positive draws has the mean but not the variance: uniform ones .0033 / .0082.
    """
    task = TabularMDP().sample(3_000, seeded())
    assert task.shape == (3_000, 10, 5, 11)
    rows = task[..., :-1].reshape(-1, 10)
    assert rows.min() >= 0
    torch.testing.assert_close(rows.sum(1), torch.ones(150_000))
    variance, covariance = 9 / 1100, -1 / 1100
    assert (rows.mean(0) - 0.1).abs().max() < 5 * math.sqrt(variance / 150_000)
    assert (rows.var(0) / variance - 1).abs().max() < 0.03
    assert (torch.cov(rows.T) - torch.eye(10) * (variance - covariance) - covariance).abs().max() < 0.03 * variance
    uniform = torch.rand(150_000, 10, generator=seeded())
    assert (uniform / uniform.sum(1, keepdim=True)).var(0).max() < 0.6 * variance  # negative control


def test_the_probability_of_one_state_has_the_marginal_of_a_flat_dirichlet():
    """Beta(1, S-1): P(p > x) = (1 - x)^9; of 150,000 rows, within five standard deviations."""
    rows = TabularMDP().sample(3_000, seeded())[..., 3].flatten()
    for x in (0.02, 0.1, 0.3, 0.6):
        tail = (1 - x) ** 9
        deviation = math.sqrt(tail * (1 - tail) / len(rows))
        assert abs((rows > x).float().mean().item() - tail) < 5 * deviation


def test_mean_rewards_are_draws_of_a_normal_around_1():
    """150,000 draws: the mean is good to 1 / 387, the variance to sqrt(2) / 387; five of each."""
    mean = TabularMDP().sample(3_000, seeded())[..., -1].flatten()
    assert abs(mean.mean().item() - 1) < 5 / 387
    assert abs(mean.var().item() - 1) < 5 * math.sqrt(2) / 387
    assert abs((mean > 2).float().mean().item() - 0.158655) < 5 * math.sqrt(0.1587 * 0.8413 / 150_000)


# --- steps ----------------------------------------------------------------------------------------

SMALL = TabularMDP(states=4, actions=2)


def test_steps_lead_where_the_task_says_and_pay_what_it_says():
    """200,000 steps of one MDP of 4 states and 2 actions: of each of the 8 pairs the frequencies of the next state
    within five standard deviations, the mean reward within five standard errors, noise of variance 1.
    """
    task = SMALL.sample(2, seeded(5))
    env = make_env(SMALL, task, 2_000)
    obs, generator = env.reset(), seeded()
    seen: list[tuple[Tensor, ...]] = []
    for _ in range(50):
        action = random_actions(env, generator)
        step = env.step(action)
        seen.append((obs.argmax(-1), action.argmax(-1), step.next_obs.argmax(-1), step.reward))
        obs = step.obs
    state, action, led_to, reward = (torch.stack(x, dim=2) for x in zip(*seen, strict=True))
    for i in range(2):
        for s in range(4):
            for a in range(2):
                here = (state[i] == s) & (action[i] == a)
                count = int(here.sum())
                assert count > 1_000
                probability = task[i, s, a, :-1]
                frequency = torch.bincount(led_to[i][here], minlength=4) / count
                deviation = (probability * (1 - probability) / count).sqrt()
                assert ((frequency - probability).abs() < 5 * deviation).all()
                paid = reward[i][here]
                assert abs((paid.mean() - task[i, s, a, -1]).item()) < 5 / math.sqrt(count)
                assert abs(paid.var().item() - 1) < 5 * math.sqrt(2 / count)
    # negative control: the other task's numbers would be noticed
    assert (task[0] - task[1]).abs().max() > 0.3


def test_rewards_and_next_states_are_drawn_apart():
    """What a step pays beyond its mean says nothing about where it leads."""
    task = torch.cat([torch.full((1, 2, 2, 2), 0.5), torch.zeros(1, 2, 2, 1)], dim=-1)
    env = make_env(TabularMDP(states=2, actions=2), task, 1_000)
    generator = seeded()
    steps = [env.step(random_actions(env, generator)) for _ in range(40)]
    reward = torch.stack([s.reward for s in steps]).flatten()
    led_to = torch.stack([s.next_obs[..., 1] for s in steps]).flatten()
    assert abs(torch.corrcoef(torch.stack([reward, led_to]))[0, 1].item()) < 5 / 200


def test_a_next_state_of_probability_1_always_and_of_0_never():
    """0 -> 3 -> 1 -> 2 -> 0, in 1,000 worlds for 40 steps."""
    env = make_env(SMALL, certain(2, [3, 2, 0, 1], [0.0] * 4).unsqueeze(0), 1_000)
    _, obs = play(env, 40, seed=0)
    path = [3, 1, 2, 0]  # by hand; every 10 steps a new episode
    expected, state = [], 0
    for t in range(40):
        state = 0 if (t + 1) % 10 == 0 else [3, 2, 0, 1][state]
        expected.append(state)
    assert expected[:4] == path
    assert (obs.argmax(-1) == torch.tensor(expected)).all()


def test_the_reward_is_that_of_the_state_left_not_of_the_state_entered():
    """0 -> 1 -> 0: 100 for leaving 0 and -100 for leaving 1, give or take the noise."""
    definition = TabularMDP(states=2, actions=2)
    env = make_env(definition, certain(2, [1, 0], [100.0, -100.0]).unsqueeze(0), 50)
    reward, _ = play(env, 10, seed=0)
    assert ((reward - torch.tensor([100.0, -100.0]).repeat(5)).abs() < 10).all()


def test_episodes_of_10_steps_begin_in_state_0():
    env = make_env(TabularMDP(), TabularMDP().sample(3, seeded()), 20)
    start = torch.nn.functional.one_hot(torch.tensor(0), 10).float().expand(3, 20, 10)
    assert torch.equal(env.reset(), start)
    generator = seeded()
    for t in range(1, 31):
        step = env.step(random_actions(env, generator))
        assert step.truncated.all().item() is (t % 10 == 0)
        assert not step.terminated.any()
        if t % 10 == 0:
            assert torch.equal(step.obs, start)
            assert not torch.equal(step.next_obs, start)
            assert env.clock.eq(0).all()
        else:
            assert torch.equal(step.obs, step.next_obs)


def test_the_observation_is_the_state_and_nothing_of_the_task():
    """Two MDPs of the same path and other rewards look alike to the last bit, and so do all at the start."""
    definition = SMALL
    poor, rich = certain(2, [1, 2, 3, 0], [0.0] * 4), certain(2, [1, 2, 3, 0], [50.0] * 4)
    env = make_env(definition, torch.stack([poor, rich]), 5)
    reward, obs = play(env, 20, seed=0)
    assert torch.equal(obs[0], obs[1])
    assert obs.sum(-1).eq(1).all()
    assert (reward[1] - reward[0]).min() > 20  # they do differ
    env = make_env(definition, definition.sample(6, seeded()), 2)
    assert env.reset().unique(dim=0).shape[0] == 1


# --- seeds, state and neighbours ------------------------------------------------------------------


def test_seeds_determine_rewards_and_states():
    task = SMALL.sample(2, seeded())
    first, again, other = (play(make_env(SMALL, task, 20, seed=seed), 25, seed=0) for seed in (3, 3, 4))
    for x, y, z in zip(first, again, other, strict=True):
        assert torch.equal(x, y)
        assert not torch.equal(x, z)


def test_a_saved_environment_goes_on_exactly_where_it_was():
    task = SMALL.sample(2, seeded())
    env = make_env(SMALL, task, 20)
    play(env, 13, seed=0)  # in the middle of an episode
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    expected, clock = play(env, 25, seed=9), env.clock
    file.seek(0)
    fresh = SMALL.make(2, 20, seed=123)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for x, y in zip(play(fresh, 25, seed=9), expected, strict=True):
        assert torch.equal(x, y)
    assert torch.equal(fresh.clock, clock)
    # negative control: tasks and a fresh start are not enough
    other = make_env(SMALL, task, 20)
    assert not torch.equal(play(other, 25, seed=9)[0], expected[0])


def test_what_was_saved_does_not_change_as_the_environment_goes_on():
    env = make_env(SMALL, SMALL.sample(2, seeded()), 20)
    play(env, 3, seed=1)
    state = env.state_dict()
    expected = play(env, 5, seed=0)
    env.set_tasks(SMALL.sample(2, seeded(8)))
    env.reset()
    play(env, 5, seed=0)
    for _ in range(2):
        env.load_state_dict(state)
        for x, y in zip(play(env, 5, seed=0), expected, strict=True):
            assert torch.equal(x, y)


def test_the_number_of_worlds_does_not_change_the_tasks():
    """Tasks drawn between the steps of 1 or 7 worlds a task are the same ones."""
    found = []
    for num_envs in (1, 7):
        generator = seeded()
        env = SMALL.make(4, num_envs, seed=0)
        tasks = []
        for _ in range(3):
            tasks.append(SMALL.sample(4, generator))
            env.set_tasks(tasks[-1])
            env.reset()
            play(env, 5, seed=0)
        found.append(torch.stack(tasks))
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], found[0][1])


def test_tasks_side_by_side_do_not_influence_each_other():
    """Task 0 keeps its bits whatever its neighbour is and does."""
    mine, results = SMALL.sample(1, seeded()), []
    for neighbour_seed in (1, 2):
        env = make_env(SMALL, torch.cat([mine, SMALL.sample(1, seeded(neighbour_seed))]), 30)
        generator, other = seeded(), seeded(neighbour_seed)
        steps = []
        for _ in range(25):
            action = random_actions(env, generator)
            action[1] = random_actions(env, other)[1]
            steps.append(env.step(action))
        results.append((torch.stack([s.reward for s in steps]), torch.stack([s.obs for s in steps])))
    for x, y in zip(*results, strict=True):
        assert torch.equal(x[:, 0], y[:, 0])
        assert not torch.equal(x[:, 1], y[:, 1])


def test_worlds_of_one_task_differ_in_their_noise():
    env = make_env(SMALL, SMALL.sample(1, seeded()), 50)
    reward, obs = play(env, 10, seed=0)
    assert len(reward[0, :, 0].unique()) == 50
    assert len(obs[0].flatten(1).unique(dim=0)) > 30


# --- definitions ----------------------------------------------------------------------------------


def test_the_preset_is_the_papers():
    task = find_preset("tabular_mdp", "rl2")
    assert (task.states, task.actions, task.horizon) == (10, 5, 10)
    assert task.spec.discrete
    assert (task.spec.obs_dim, task.spec.action_dim) == (10, 5)
    assert not task.spec.terminates


@pytest.mark.parametrize("options", [{"states": 1}, {"actions": 1}, {"horizon": 0}])
def test_a_bad_field_is_named(options: dict):
    (name,) = options
    with pytest.raises(BadField, match=f"{name} is {options[name]}"):
        TabularMDP(**options)
