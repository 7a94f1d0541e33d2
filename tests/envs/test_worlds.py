"""Clocks, time limits, automatic resets, snapshots and failed physics, on counted worlds and on MuJoCo's."""

import io
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.envs.api import EnvSpec, Step
from metarl.envs.registry import find_preset
from metarl.envs.worlds import BatchedTaskEnv, Outcome

HORIZON, NUM_TASKS, NUM_ENVS = 4, 2, 2
# Steps after which each world terminates by itself: before the time limit of 4, exactly at it, or never.
LENGTHS = [2, 4, 99, 3]


class CountingWorlds:
    """Observation: (task, env, episode, step, a number drawn at reset). Reward: 100 episode + step."""

    def __init__(self, lengths: list[int], num_envs: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.env = torch.arange(len(lengths)) % num_envs
        self.task = torch.zeros(len(lengths))
        self.episode = torch.full((len(lengths),), -1)
        self.age = torch.zeros(len(lengths), dtype=torch.int64)
        self.drawn = torch.zeros(len(lengths))
        self.action = torch.empty(0)

    def set_tasks(self, task: Tensor) -> None:
        self.task = task

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        self.drawn = torch.where(mask, torch.rand(len(mask), generator=generator), self.drawn)
        self.episode += mask
        self.age *= ~mask

    def observe(self) -> Tensor:
        return torch.stack([self.task, self.env, self.episode, self.age, self.drawn], dim=1).float()

    def step(self, action: Tensor) -> Outcome:
        self.action = action
        self.age += 1
        ended, nowhere = self.age >= self.lengths, torch.zeros(len(self.lengths), dtype=torch.bool)
        return Outcome((100 * self.episode + self.age).float(), ended, ended, nowhere)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in ("task", "episode", "age", "drawn")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value.clone())


def make_counting(seed: int = 0) -> BatchedTaskEnv:
    spec = EnvSpec(obs_dim=5, action_dim=1, horizon=HORIZON, terminates=True, has_success=True)
    env = BatchedTaskEnv(CountingWorlds(LENGTHS, NUM_ENVS), spec, NUM_TASKS, NUM_ENVS, seed=seed)
    env.set_tasks(torch.tensor([7.0, 8.0]))
    return env


def actions_of(env: BatchedTaskEnv, num_steps: int) -> Tensor:
    """[time task env act], a function of the step alone."""
    shape = (num_steps, env.num_tasks, env.num_envs, env.spec.action_dim)
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 1


def play(env: BatchedTaskEnv, num_steps: int) -> list[Step]:
    return [env.step(action) for action in actions_of(env, num_steps)]


def same_bits(first: object, second: object) -> bool:
    pairs = zip(tree_leaves(first), tree_leaves(second), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


# --- episodes


def test_reset_starts_every_world_at_clock_zero() -> None:
    env = make_counting()
    for episode in range(2):
        obs = env.reset()
        # (task, env, episode, step) of worlds (0, 0), (0, 1), (1, 0), (1, 1)
        e = episode
        assert obs[..., :4].tolist() == [[[7, 0, e, 0], [7, 1, e, 0]], [[8, 0, e, 0], [8, 1, e, 0]]]
        assert env.clock.eq(0).all()


def test_every_step_of_every_world_is_what_its_count_says() -> None:
    """Episodes last min(length, 4) = 2, 4, 4, 3 steps; ``next_obs`` ends one, ``obs`` begins the next.

    Termination and the time limit are told apart: lengths 2 and 3 terminate, 99 is truncated, and 4 is both.
    """
    env = make_counting()
    env.reset()
    expected = [[0, 0] for _ in LENGTHS]  # (episode, step) of each world
    for action in actions_of(env, 13):
        step = env.step(action)
        for world, length in enumerate(LENGTHS):
            task, i = divmod(world, NUM_ENVS)
            episode, age = expected[world]
            age += 1
            assert step.next_obs[task, i, :4].tolist() == [7 + task, i, episode, age]
            assert step.reward[task, i].item() == 100 * episode + age
            assert step.terminated[task, i].item() == step.success[task, i].item() == (age == length)
            assert step.truncated[task, i].item() == (age == HORIZON)
            if age in (length, HORIZON):
                episode, age = episode + 1, 0
            assert step.obs[task, i, :4].tolist() == [7 + task, i, episode, age]
            assert env.clock[task, i].item() == age
            expected[world] = [episode, age]
        assert not step.diverged.any()
    # 13 steps are 6 episodes of 2, 3 of 4, 3 of 4 and 4 of 3, and a rest
    assert expected == [[6, 1], [3, 1], [3, 1], [4, 1]]


def test_only_the_worlds_that_ended_are_reset() -> None:
    """The number drawn at reset changes with the episode and with nothing else."""
    env = make_counting()
    obs = env.reset()
    for step in play(env, 12):
        ended = step.terminated | step.truncated
        assert torch.equal(step.next_obs[..., 4], obs[..., 4])
        assert torch.equal(step.obs[..., 4] != step.next_obs[..., 4], ended)
        assert torch.equal(step.obs[~ended], step.next_obs[~ended])
        obs = step.obs


def test_observations_handed_out_do_not_change_later() -> None:
    env = make_counting()
    first = env.reset()
    copies, steps = [first.clone()], []
    for step in play(env, 6):
        steps.append(step)
        copies.append(step.next_obs.clone())
    assert torch.equal(first, copies[0])
    assert same_bits([step.next_obs for step in steps], copies[1:])


def test_actions_are_clipped_and_go_to_their_world() -> None:
    env = make_counting()
    env.reset()
    env.step(torch.tensor([[[-5.0], [-0.25]], [[0.5], [torch.inf]]]))
    assert env.worlds.action.tolist() == [[-1.0], [-0.25], [0.5], [1.0]]


@pytest.mark.parametrize("num_tasks", [1, 3, 4])
def test_the_number_of_tasks_must_fit(num_tasks: int) -> None:
    """4 is the number of worlds, a mistake that could otherwise pass."""
    with pytest.raises(ValueError, match=f"{num_tasks} tasks were given to an environment of 2"):
        make_counting().set_tasks(torch.zeros(num_tasks))


def test_the_seed_decides_the_resets() -> None:
    first, again, other = (make_counting(seed).reset() for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first[..., 4] != other[..., 4]).all()


# --- snapshots


MUJOCO = [
    ("half_cheetah_dir", "maml2017"),
    ("half_cheetah_dir", "v5"),
    ("half_cheetah_vel", "maml2017"),
    ("half_cheetah_vel", "v5"),
]


def make_short(name: str, preset: str, *, seed: int = 0, horizon: int = 60) -> BatchedTaskEnv:
    """Episodes of 60 steps, so that 37 + 50 steps cross a reset."""
    env = replace(find_preset(name, preset), horizon=horizon).make(2, 4, seed=seed, num_threads=1)
    goals = torch.tensor([[0.3, -0.2], [2.0, 2.0]]) if name == "navigation" else torch.tensor([-1.0, 1.0])
    env.set_tasks(goals)
    return env


@pytest.mark.parametrize(("name", "preset"), [*MUJOCO, ("navigation", "maml2017"), ("navigation", "corner")])
def test_a_restored_environment_repeats_every_bit(name: str, preset: str) -> None:
    """37 steps, save, 50 steps, restore, 50 steps; and the same in a new environment from the saved bytes."""
    env = make_short(name, preset)
    env.reset()
    play(env, 37)
    saved, file = env.state_dict(), io.BytesIO()
    torch.save(saved, file)
    onwards = play(env, 50)
    assert any(step.truncated.any() for step in onwards)
    assert not same_bits(saved, env.state_dict())  # what was saved is a copy

    env.load_state_dict(saved)
    assert same_bits(play(env, 50), onwards)

    other = make_short(name, preset, seed=99)
    other.set_tasks(torch.zeros_like(torch.tensor([[0.0, 0.0]] * 2) if name == "navigation" else torch.zeros(2)))
    other.reset()
    play(other, 11)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same_bits(play(other, 50), onwards)
    assert same_bits(other.state_dict(), env.state_dict())


def test_a_restored_counting_environment_repeats_every_bit() -> None:
    env = make_counting()
    env.reset()
    play(env, 7)
    saved = env.state_dict()
    onwards = play(env, 9)
    other = make_counting(seed=5)
    other.load_state_dict(saved)
    assert same_bits(play(other, 9), onwards)


@pytest.mark.parametrize("what", ["seed", "resets", "steps"])
def test_what_restarts_draw_from_belongs_to_the_state(what: str) -> None:
    """Negative control: with another seed or count the worlds repeat until the first of them ends, and no longer."""
    env = make_counting()
    env.reset()
    play(env, 1)
    saved = env.state_dict()
    onwards = play(env, 2)
    env.load_state_dict(saved | {"draws": saved["draws"] | {what: 5}})
    step = play(env, 2)[0]  # world (0, 0) ends here, the others do not
    assert torch.equal(step.next_obs, onwards[0].next_obs)
    assert (step.obs[..., 4] != onwards[0].obs[..., 4]).tolist() == [[True, False], [False, False]]


def test_the_reset_generator_belongs_to_the_state() -> None:
    env = make_counting()
    env.reset()
    saved = env.state_dict()
    starts = env.reset()
    env.load_state_dict(saved)
    assert torch.equal(env.reset()[..., 4], starts[..., 4])
    env.load_state_dict(saved | {"generator": torch.Generator().manual_seed(5).get_state()})
    assert (env.reset()[..., 4] != starts[..., 4]).all()


@pytest.mark.parametrize(("name", "preset"), MUJOCO[:2])
def test_positions_and_velocities_alone_are_not_the_state(name: str, preset: str) -> None:
    """Negative control: in contact, the solver's warm start decides the last bits of what follows."""
    env = make_short(name, preset, horizon=1000)
    env.reset()
    play(env, 37)
    qpos, qvel = (env.worlds.physics.bind(field).clone() for field in ("qpos", "qvel"))
    other = make_short(name, preset, horizon=1000)
    other.reset()
    other.worlds.physics.bind("qpos")[:], other.worlds.physics.bind("qvel")[:] = qpos, qvel
    other.worlds.physics.forward(torch.ones(8, dtype=torch.bool))
    assert torch.equal(other.worlds.observe(), env.worlds.observe())
    play(env, 50), play(other, 50)
    assert not torch.equal(other.worlds.physics.bind("qpos"), env.worlds.physics.bind("qpos"))


# --- failed physics

BAD_WORLD = (0, 3)  # world 3 of 8
NAN = float("nan")


@pytest.mark.parametrize(("name", "preset"), MUJOCO[:2])
@pytest.mark.parametrize(("field", "value"), [("qpos", NAN), ("qpos", 1e12), ("qvel", NAN), ("qvel", 1e12)])
@pytest.mark.parametrize("when", [0, 1, 20])
def test_a_world_whose_physics_failed_is_cut_and_the_others_do_not_notice(
    name: str, preset: str, value: float, field: str, when: int
) -> None:
    """MuJoCo silently resets such a world and goes on from there, so nothing in its state looks wrong.

    Its time does, running back to 0; but in the first step of an episode, ``when=0``, it was 0 before, too.
    """
    env, undisturbed = make_short(name, preset), make_short(name, preset)
    for e in (env, undisturbed):
        e.reset()
        play(e, when)
    env.worlds.physics.bind(field)[3, 1] = value
    step, reference = play(env, 1)[0], play(undisturbed, 1)[0]

    failed = torch.zeros(2, 4, dtype=torch.bool)
    failed[BAD_WORLD] = True
    assert torch.equal(step.diverged, failed)
    assert torch.equal(step.truncated, failed)
    assert not step.terminated.any()
    assert step.reward[BAD_WORLD] == 0
    assert env.clock[BAD_WORLD] == 0
    assert env.num_diverged == 1
    assert step.obs.isfinite().all()
    assert step.next_obs.isfinite().all()

    for ours, theirs in zip([step, *play(env, 20)], [reference, *play(undisturbed, 20)], strict=True):
        assert torch.equal(ours.next_obs[~failed], theirs.next_obs[~failed])
        assert torch.equal(ours.reward[~failed], theirs.reward[~failed])
        assert not (ours.diverged & ~failed).any()


def test_a_failed_world_starts_an_ordinary_episode() -> None:
    """It runs to its own time limit, 60 steps later, and is not counted again."""
    env = make_short("half_cheetah_dir", "v5")
    env.reset()
    play(env, 10)
    env.worlds.physics.bind("qpos")[3, 1] = NAN
    steps = play(env, 61)
    flags = torch.stack([step.truncated[BAD_WORLD] for step in steps])
    assert flags.nonzero().flatten().tolist() == [0, 60]
    assert torch.stack([step.diverged[BAD_WORLD] for step in steps]).sum() == 1
    assert env.num_diverged == 1


def test_the_count_of_failures_is_restored() -> None:
    env = make_short("half_cheetah_dir", "v5")
    env.reset()
    play(env, 1)
    env.worlds.physics.bind("qpos")[3, 1] = NAN
    play(env, 1)
    other = make_short("half_cheetah_dir", "v5")
    other.load_state_dict(env.state_dict())
    assert other.num_diverged == 1


def test_the_count_of_overflows_is_restored() -> None:
    env, other = make_counting(), make_counting()
    env.worlds.num_overflowed, other.worlds.num_overflowed = 3, 2
    other.load_state_dict(env.state_dict())
    assert other.num_overflowed == 3
    other.worlds.num_overflowed += 1
    assert other.num_overflowed == 4


@pytest.mark.parametrize(
    ("name", "preset"), [("hopper_rand_params", "promp"), ("ant_dir", "maml2017"), ("half_cheetah_dir", "maml2017")]
)
def test_resting_worlds_stand_still_and_the_others_do_not_notice(name: str, preset: str) -> None:
    tasks = find_preset(name, preset)
    generator = torch.Generator().manual_seed(0)
    resting, busy = (tasks.make(2, 3, seed=0) for _ in range(2))
    for env in (resting, busy):
        env.set_tasks(tasks.sample(2, torch.Generator().manual_seed(1)))
        env.reset()
    still = torch.tensor([[False, True, False], [True, False, False]])

    def step_both() -> tuple[Step, Step]:
        action = torch.rand(2, 3, tasks.spec.action_dim, generator=generator) * 2 - 1
        return resting.step(action), busy.step(action)

    before, _ = step_both()
    resting.rest(still)
    for _ in range(4):
        found, expected = step_both()
        assert torch.equal(found.obs[still], before.obs[still])
        for name, value in found._asdict().items():
            assert torch.equal(value[~still], getattr(expected, name)[~still]), name
    assert not found.diverged.any()
    assert resting.num_diverged == 0
    resting.rest(~still)
    awake, _ = step_both()
    assert torch.equal((awake.obs != found.obs).any(-1), still)
    start = resting.reset()
    assert (step_both()[0].obs != start).any(-1).all()
