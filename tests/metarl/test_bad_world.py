"""Faults 4, 15 and 24: NaN or infinity in one world, for every learner and field, at any step, on both engines."""

import io
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from update_checks import meta_update

from metarl import ESMAML, MAML, RL2, GaussianMLP, ProMP, RecurrentPolicy, Reptile
from metarl.envs.registry import TaskDistribution, find_preset
from metarl.envs.small.navigation import Navigation
from metarl.envs.worlds import BatchedTaskEnv, Outcome
from metarl.evaluate import MetaTest, held_out_tasks, meta_test
from metarl.faults import Notices, check_test
from metarl.reports.success import first_finished
from metarl.reports.tables import Plan, estimates, row_record, trial_estimate
from metarl.rollout import rollout
from metarl.train import Progress, train
from metarl.types import Experience, MetaLearner, Metrics, TrajectoryBatch, remembers, trial_stages

pytestmark = pytest.mark.usefixtures("one_thread")

NAN, INF = math.nan, math.inf
HORIZON, NUM_TASKS, NUM_ENVS, BAD = 5, 2, 4, (0, 1)  # BAD: the task and the world that is disturbed
POINTS = Navigation(horizon=HORIZON, variant="corner", max_step=0.2)  # random starts, never ends early
SMALL = GaussianMLP((8,))

LEARNERS: dict[str, MetaLearner] = {
    "ProMP": ProMP(policy=SMALL, target_kl=0.01),
    "Reptile": Reptile(policy=SMALL),
    "ES-MAML": ESMAML(policy=SMALL, pairs=1),
    "RL2": RL2(policy=RecurrentPolicy(memory_size=8), epochs=2),
    "RL2, linear baseline": RL2(
        policy=RecurrentPolicy(memory_size=8, memory="lstm"),
        baseline=MAML().baseline,
        epochs=2,
        standardize_reward=True,
    ),
} | {f"MAML, {name}": MAML(policy=SMALL, estimator=name) for name in ("maml", "fomaml", "emaml", "dice", "lvc")}


class Disturbed:
    """Worlds in which ``field`` of ``world`` is ``value`` in the steps ``when``, counted from the start of the worlds.

    The fields: reward, observation, first observation (of the episode that begins there), and state (of MuJoCo).
    """

    def __init__(self, worlds: Any, field: str, value: float, when: range | list[int], world: int | None) -> None:
        self.worlds, self.field, self.value, self.when = worlds, field, value, when
        self.where = slice(None) if world is None else slice(world, world + 1)
        self.steps, self.fresh = 0, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.worlds, name)

    def set_tasks(self, task: Tensor) -> None:
        self.worlds.set_tasks(task)

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        self.worlds.reset(mask, generator)
        self.fresh = True

    def observe(self) -> Tensor:
        obs = self.worlds.observe()
        if self.field == ("first observation" if self.fresh else "observation") and self.steps in self.when:
            obs[self.where] = self.value
        return obs

    def step(self, action: Tensor) -> Outcome:
        self.steps, self.fresh = self.steps + 1, False
        if self.field == "state" and self.steps in self.when:
            self.worlds.physics.bind("qpos")[self.where, 1] = self.value
        outcome = self.worlds.step(action)
        if self.field == "reward" and self.steps in self.when:
            outcome.reward[self.where] = self.value
        return outcome

    def rest(self, mask: Tensor) -> None:
        if hasattr(self.worlds, "rest"):
            self.worlds.rest(mask)


def disturb(
    env: BatchedTaskEnv, field: str, when: range | list[int], *, value: float = NAN, everywhere: bool = False
) -> BatchedTaskEnv:
    world = None if everywhere else BAD[0] * env.num_envs + BAD[1]
    env.worlds = Disturbed(env.worlds, field, value, when, world)
    return env


FIELDS = ["reward", "observation", "first observation"]
PAIRS = [  # every learner meets one, and all of them where slow tests run
    pytest.param(name, field, marks=[pytest.mark.slow] * ((i + j) % 3 > 0))
    for i, name in enumerate(LEARNERS)
    for j, field in enumerate(FIELDS)
]
POSITIONS = [1, 3, HORIZON, HORIZON + 2, 2 * HORIZON]  # first, middle, last; of the first and the second episode
STARTS = [0, HORIZON]  # when first observations are made


def positions(field: str) -> list[int]:
    return STARTS if field == "first observation" else POSITIONS


CASES = [(field, t) for field in FIELDS for t in positions(field)]
OTHERS = torch.ones(NUM_TASKS, NUM_ENVS, dtype=torch.bool)
OTHERS[BAD] = False


def named_in(env: BatchedTaskEnv) -> tuple[int, list[int]]:
    """Episodes counted, and of the disturbed task by state, observation and reward."""
    assert env.faults.sum() == env.faults[BAD[0]].sum()
    return int(env.num_diverged), env.faults[BAD[0]].tolist()


# --- the other worlds -------------------------------------------------------------------------------


def played(
    learner: MetaLearner, task: TaskDistribution, disturbance: Callable[[BatchedTaskEnv], Any], **options: Any
) -> tuple[list[TrajectoryBatch], BatchedTaskEnv]:
    """Three rollouts of two episodes."""
    env = task.make(NUM_TASKS, NUM_ENVS, seed=0, num_threads=1, **options)
    disturbance(env)
    env.set_tasks(task.sample(NUM_TASKS, torch.Generator().manual_seed(1)))
    state = learner.init(task.spec, torch.Generator().manual_seed(2))
    actor, actions = learner.actor(state, NUM_TASKS), torch.Generator().manual_seed(3)
    return [rollout(env, learner.act, actor, 2, actions, trials=remembers(learner))[0] for _ in range(3)], env


def assert_others_same(found: list[TrajectoryBatch], expected: list[TrajectoryBatch]) -> None:
    for one, other in zip(found, expected, strict=True):
        steps = min(one.valid.shape[-1], other.valid.shape[-1])
        assert not one.valid[..., steps:][OTHERS].any()
        valid = other.valid & OTHERS.unsqueeze(-1)
        assert torch.equal(one.valid[..., :steps][OTHERS], other.valid[..., :steps][OTHERS])
        assert not other.valid[..., steps:][OTHERS].any()
        valid = valid[..., :steps]
        for name in ("obs", "next_obs", "action", "reward", "terminated", "truncated", "success", "log_prob", "clock"):
            a, b = (getattr(batch, name)[:, :, :steps][valid] for batch in (one, other))
            assert torch.equal(a, b), name


TASKS = {
    "points": (POINTS, MAML(policy=SMALL)),
    "points with memory": (POINTS, RL2(policy=RecurrentPolicy(memory_size=8))),
    "pendulums that end early": (
        replace(find_preset("cartpole_mass"), horizon=60),
        RL2(policy=RecurrentPolicy(memory_size=8)),
    ),
}


@cache
def undisturbed(name: str) -> list[TrajectoryBatch]:
    task, learner = TASKS[name]
    return played(learner, task, lambda env: None)[0]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", TASKS)
def test_fault_15_no_other_world_changes_a_bit(name: str, field: str) -> None:
    """Nor by the resets of the bad one, over six episodes."""
    task, learner = TASKS[name]
    expected, long = undisturbed(name), not name.startswith("points")
    for t in positions(field) if field == "first observation" or not long else [3, HORIZON + 2]:
        found, env = played(learner, task, lambda env, t=t: disturb(env, field, [t]))
        assert_others_same(found, expected)
        assert all(x.isfinite().all() for x in tree_leaves(found) if x.is_floating_point())
        if name.startswith("points"):
            assert named_in(env) == (1, [0, field != "reward", field == "reward"])
        assert env.num_diverged == (t == 0 or field != "first observation" or name.startswith("points"))


def test_fault_15_a_world_that_lives_on_alone_does_not_shift_the_next_rollouts_numbers() -> None:
    """The bad world is the last to end, far beyond the others: what they draw next is the same."""
    task, learner = TASKS["pendulums that end early"]

    def never_falls(env: BatchedTaskEnv) -> None:
        step = env.worlds.step

        def stepped(action: Tensor) -> Outcome:
            outcome = step(action)
            outcome.terminated[BAD[0] * NUM_ENVS + BAD[1]] = False
            return outcome

        env.worlds.step = stepped

    expected, _ = played(learner, task, lambda env: None)
    found, _ = played(learner, task, never_falls)
    assert found[0].valid.shape[-1] > expected[0].valid.shape[-1]
    assert_others_same(found, expected)


@pytest.mark.parametrize("engine", ["cpu", "warp"])
@pytest.mark.parametrize(("field", "value"), [("state", NAN), ("state", 1e12), ("reward", INF), ("observation", NAN)])
def test_fault_15_on_both_engines(engine: str, field: str, value: float) -> None:
    if engine == "warp":
        pytest.importorskip("mujoco_warp")
    task = replace(find_preset("half_cheetah_dir", "v5"), horizon=HORIZON)
    learner = MAML(policy=SMALL)
    expected, _ = played(learner, task, lambda env: None, physics=engine)
    found, env = played(learner, task, lambda env: disturb(env, field, [2, 11], value=value), physics=engine)
    assert_others_same(found, expected)
    assert named_in(env) == (2, [2 * (field == f) for f in ("state", "observation", "reward")])
    assert all(x.isfinite().all() for x in tree_leaves(found) if x.is_floating_point())
    assert found[0].valid[BAD].tolist() == [False] * 2 + [True] * 5 + [False] * 3
    assert found[1].valid[BAD].tolist() == [False] + [True] * 5 + [False] * 4
    assert found[2].valid.all()


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e16])
def test_fault_15_what_a_step_hands_out_is_finite(value: float) -> None:
    for field, t in CASES:
        env = disturb(POINTS.make(NUM_TASKS, NUM_ENVS, seed=0), field, [t], value=value)
        seen = [env.reset()]
        steps = [env.step(torch.full((NUM_TASKS, NUM_ENVS, 2), 0.1)) for _ in range(2 * HORIZON + 1)]
        seen += [x for step in steps for x in (step.obs, step.next_obs, step.reward)]
        assert all(x.abs().max() < 100 for x in seen)
        diverged = torch.stack([step.diverged for step in steps])
        ends = t if field == "first observation" else t - 1  # an episode that begins badly is over after its first step
        assert diverged.nonzero().tolist() == [[ends, *BAD]]
        assert torch.equal(diverged & torch.stack([step.truncated for step in steps]), diverged)


def test_fault_15_a_bad_first_observation_is_not_forgotten_by_a_snapshot() -> None:
    env, other = (POINTS.make(NUM_TASKS, NUM_ENVS, seed=seed) for seed in (0, 1))
    disturb(env, "first observation", [0])
    env.reset()
    other.load_state_dict(env.state_dict())
    assert other.step(torch.zeros(NUM_TASKS, NUM_ENVS, 2)).diverged.nonzero().tolist() == [list(BAD)]


def test_a_snapshot_of_older_versions_goes_on() -> None:
    env, other = (POINTS.make(NUM_TASKS, NUM_ENVS, seed=0) for _ in range(2))
    env.reset()
    action = torch.zeros(NUM_TASKS, NUM_ENVS, 2)
    for _ in range(2):
        env.step(action)
    old = {name: value for name, value in env.state_dict().items() if name not in ("draws", "spoiled")}
    other.load_state_dict(old)
    for _ in range(2 * HORIZON):
        assert torch.equal(env.step(action).obs, other.step(action).obs)
    assert torch.equal(env.reset(), other.reset())


# --- the learners -----------------------------------------------------------------------------------


class Run:
    def __init__(self, learner: MetaLearner, task: TaskDistribution = POINTS) -> None:
        self.learner, self.task = learner, task
        self.env: Any = task.make(NUM_TASKS, NUM_ENVS, seed=0, num_threads=1)
        state = learner.init(task.spec, torch.Generator().manual_seed(0))
        self.progress = Progress(state, *(torch.Generator().manual_seed(seed) for seed in (1, 2, 3)))
        self.logged: list[Metrics] = []
        self.console = Console(file=io.StringIO(), width=60)

    def train(self, iterations: int) -> None:
        train(
            self.learner,
            self.task,
            self.env,
            self.progress,
            iterations=iterations,
            episodes=2,
            begin=lambda: None,
            log=self.logged.append,
            notice=Notices(self.console),
        )

    @property
    def said(self) -> list[str]:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue().splitlines()

    def assert_sound(self) -> None:
        numbers = [x for x in tree_leaves(self.progress.learner_state) if isinstance(x, Tensor)]
        assert all(x.isfinite().all() for x in numbers)
        assert all(math.isfinite(value) for metrics in self.logged for value in metrics.values())
        assert not any("train/skipped_updates" in metrics for metrics in self.logged)


@pytest.mark.parametrize(("name", "field"), PAIRS)
def test_fault_15_training_goes_on_and_says_so_once(name: str, field: str) -> None:
    """The bad world is bad in each iteration; its episodes are counted, and its task and field are named once."""
    for t in STARTS if field == "first observation" else [1, HORIZON + 2, 2 * HORIZON]:
        run = Run(LEARNERS[name])
        batches = run.learner.adapt_steps + 1
        disturb(run.env, field, [2 * HORIZON * batches * k + t for k in range(2)])
        run.train(2)
        run.assert_sound()
        assert [metrics["train/diverged_worlds"] for metrics in run.logged] == [1, 2]
        what = "reward" if field == "reward" else "observation"
        (sentence,) = run.said
        assert sentence.startswith(f"navigation: the {what} was NaN or infinite in 1 episode of task [")
        assert f"check {'its reward' if field == 'reward' else 'what it observes'}" in sentence


def same(first: Any, second: Any) -> bool:
    pairs = zip(tree_leaves(first), tree_leaves(second), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("name", LEARNERS)
def test_fault_15_nothing_of_the_bad_episode_is_used(name: str) -> None:
    """Junk in place of all that it holds, the steps before the bad one included, changes no bit of an update."""
    learner = LEARNERS[name]
    run = Run(learner)
    disturb(run.env, "reward", [3, 2 * HORIZON + 3])
    state = run.progress.learner_state
    run.env.set_tasks(POINTS.sample(NUM_TASKS, torch.Generator()))
    explorer, actions = learner.explorer(state, NUM_TASKS, torch.Generator()), torch.Generator().manual_seed(5)

    def updated(junk: bool) -> Any:
        actor, batches = explorer, []
        for step, batch in enumerate(sampled):
            spoiled = batch._replace(
                **{name: getattr(batch, name).clone() for name in ("obs", "action", "reward", "log_prob")}
            )
            for x in (spoiled.obs, spoiled.action, spoiled.reward, spoiled.log_prob):
                x[BAD][~batch.valid[BAD]] = 7.0
            batches.append(learner.credit(state, spoiled if junk else batch))
            if step < learner.adapt_steps:
                actor = learner.adapt(state, actor, batches[-1])
        return tree_leaves([actor, meta_update(learner, state, batches, explorer=explorer)][not learner.adapt_steps :])

    sampled = [
        rollout(run.env, learner.act, explorer, 2, actions, trials=remembers(learner))[0]
        for _ in range(learner.adapt_steps + 1)
    ]
    for batch in sampled:
        assert batch.valid[OTHERS].all()
        episode = [False] * 3 + [True] * HORIZON + [False] * (HORIZON - 3)
        assert batch.valid[BAD].tolist() == ([False] * 10 if remembers(learner) else episode)
    assert same(updated(junk=False), updated(junk=True))


def test_fault_15_a_perturbed_policy_without_episodes_takes_its_pair_out() -> None:
    """Two pairs, a world for each policy: world 1 is the second pair's first policy."""
    learner = ESMAML(policy=SMALL, pairs=2)
    run = Run(learner)
    disturb(run.env, "reward", range(1, 1000))
    state = run.progress.learner_state
    run.env.set_tasks(POINTS.sample(NUM_TASKS, torch.Generator()))
    actor, actions = learner.explorer(state, NUM_TASKS, torch.Generator().manual_seed(6)), torch.Generator()
    batches = [rollout(run.env, learner.act, actor, 2, actions)[0] for _ in range(2)]
    after, _ = meta_update(learner, state, batches, explorer=actor)
    paid = batches[-1].reward.clone()
    paid[0, 3] += 100.0  # its partner
    again, _ = meta_update(learner, state, [batches[0], batches[1]._replace(reward=paid)], explorer=actor)
    assert same(after, again)
    paid[0, 2] += 100.0  # of the other pair
    other, _ = meta_update(learner, state, [batches[0], batches[1]._replace(reward=paid)], explorer=actor)
    assert not torch.equal(other.optimizer["state"][0]["exp_avg"], after.optimizer["state"][0]["exp_avg"])


@pytest.mark.parametrize("field", ["reward", "observation"])
@pytest.mark.parametrize("name", LEARNERS)
def test_fault_15_the_run_stops_where_it_is_no_exception(name: str, field: str) -> None:
    run = Run(LEARNERS[name])
    disturb(run.env, field, range(1, 1000), everywhere=True)
    unit = "8 trials" if remembers(LEARNERS[name]) else "16 episodes"
    expected = rf"navigation: 0 of {unit} of a batch can be used, the {field} was NaN or infinite of task \[.*\]: check"
    with pytest.raises(FloatingPointError, match=expected):
        run.train(2)
    assert not run.logged


@pytest.mark.parametrize("name", ["RL2", "RL2, linear baseline"])
def test_fault_4_a_reward_that_is_nan_in_the_last_step_of_every_trial_stops_the_run(name: str) -> None:
    run = Run(LEARNERS[name])
    disturb(run.env, "reward", [2 * HORIZON], everywhere=True)
    with pytest.raises(FloatingPointError, match=r"navigation: 0 of 8 trials of a batch .* reward was NaN or infinite"):
        run.train(2)


def test_fault_15_a_task_that_cannot_adapt_stops_the_run() -> None:
    run = Run(MAML(policy=SMALL))
    disturb(run.env, "reward", range(1, 1000)).worlds.where = slice(0, NUM_ENVS)  # the first task
    with pytest.raises(FloatingPointError, match="navigation: 0 of 8 episodes of a task can be used, the reward was"):
        run.train(2)
    run = Run(LEARNERS["RL2"])  # credit is normalized over the meta-batch: it can do without
    disturb(run.env, "reward", [1]).worlds.where = slice(0, NUM_ENVS)
    run.train(2)
    run.assert_sound()


def test_fault_15_a_policy_that_diverged_is_still_to_blame() -> None:
    run = Run(MAML(policy=SMALL))
    state = run.progress.learner_state
    run.progress.learner_state = state._replace(meta=tree_map(lambda x: torch.full_like(x, NAN), state.meta))
    with pytest.raises(FloatingPointError, match=r"the policy's actions are not finite: .*inner_lr"):
        run.train(1)
    assert not run.said


# --- updates that are skipped -----------------------------------------------------------------------


class Skipping(Reptile):
    def update(self, state: Any, experience: Experience, generator: torch.Generator) -> tuple[Any, Metrics]:
        return state, {"train/skipped_updates": 1.0, "train/policy_std": 1.0}


@pytest.mark.parametrize(("iterations", "logged"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_fault_4_updates_that_are_skipped_do_not_look_like_success(iterations: int, logged: int) -> None:
    run = Run(Skipping(policy=SMALL))
    with pytest.raises(FloatingPointError, match=r"skipped, for the meta-gradient was not finite: start a run with"):
        run.train(iterations)
    assert len(run.logged) == logged


# --- tests on held-out tasks ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MAML, maml", "RL2"])
@pytest.mark.parametrize("field", ["reward", "observation"])
def test_fault_15_bad_episodes_leave_returns_and_successes(name: str, field: str) -> None:
    learner = LEARNERS[name]
    state = learner.init(POINTS.spec, torch.Generator().manual_seed(0))
    tasks = held_out_tasks(POINTS, NUM_TASKS)
    options: dict[str, Any] = {"episodes": 2} if remembers(learner) else {"scales": (1.0,)}
    results = []
    for when in ([], [2], range(1, 1000)):
        env = disturb(POINTS.make(NUM_TASKS, NUM_ENVS, seed=0), field, when)
        results.append(meta_test(learner, state, env, tasks, seed=0, **options))
    whole, once, always = results
    assert not whole.returns.isnan().any()
    left_out = torch.zeros(NUM_TASKS, 2, NUM_ENVS, dtype=torch.bool)
    left_out[BAD[0], : 2 if remembers(learner) else 1, BAD[1]] = True  # a trial leaves whole
    assert torch.equal(once.returns.isnan(), left_out)
    assert torch.equal(once.solved_after == -1, left_out)
    assert torch.equal(once.solved.isnan(), left_out)
    before = ~left_out[:, 0]
    assert torch.equal(once.returns[:, 0][before], whole.returns[:, 0][before])
    plan = Plan(NUM_TASKS, NUM_ENVS, trial_stages(2), min_steps=0, adaptation_episodes=1, seed=0)
    for result in (once, always):
        numbers = [*estimates(result, iqm=False), *estimates(result, iqm=True), trial_estimate(result)]
        assert all(math.isfinite(x) for number in numbers for x in number)
        record = row_record(plan, result, True, raw=True)
        assert record["left_out"] == result.returns.isnan().sum()
        assert record["returns"][BAD[0]][0][BAD[1]] is None
    expected = once.returns[:, 0].double()
    by_task = [expected[0][[0, 2, 3]].mean(), expected[1].mean()]
    assert estimates(once, iqm=False)[0].value == pytest.approx(float(sum(by_task)) / 2)


def test_fault_15_a_test_of_which_nothing_is_left_says_why() -> None:
    learner = LEARNERS["MAML, maml"]
    state, tasks = learner.init(POINTS.spec, torch.Generator().manual_seed(0)), held_out_tasks(POINTS, NUM_TASKS)
    env = disturb(POINTS.make(NUM_TASKS, NUM_ENVS, seed=0), "observation", range(1, 1000), everywhere=True)
    result = meta_test(learner, state, env, tasks, scales=(1.0,), seed=0)
    with pytest.raises(FloatingPointError, match="navigation: no episode can be used, the observation was NaN"):
        check_test(result, env, POINTS, tasks)
    never, share = torch.zeros(2, 1, 1, dtype=torch.bool), torch.zeros(2, 1, 1, dtype=torch.float64)
    one = MetaTest(torch.tensor([[[1.0]], [[NAN]]]), torch.tensor([[[0]], [[-1]]]), never, share)
    check_test(one, env, POINTS, tasks)
    with pytest.raises(FloatingPointError, match="no episode of b can be used"):
        check_test(one, env, POINTS, tasks, labels=["a", "b"])


def test_fault_15_a_bad_episode_is_none_of_the_first_to_finish() -> None:
    solved_after = torch.tensor([[-1, 0, 10], [0, 0, 0]]).numpy()
    assert first_finished(solved_after, horizon=100, parallel=2, count=3) == 0.0
    assert first_finished(solved_after[:, ::-1], horizon=100, parallel=2, count=1) == 1.0
    assert first_finished(torch.tensor([[-1, -1], [5, 0]]).numpy(), horizon=100, parallel=2, count=1) == 1.0


# --- MuJoCo's own warnings --------------------------------------------------------------------------

FAILING = """
import torch
from metarl.envs.registry import find_preset
env = find_preset("half_cheetah_dir", "v5").make(1, 8, seed=0, physics={engine!r}, num_threads=2)
env.set_tasks(torch.ones(1))
env.reset()
for step in range(20):
    env.worlds.physics.bind("qpos")[:, 1] = float("nan")
    assert env.step(torch.zeros(1, 8, 6)).diverged.all()
print(int(env.num_diverged))
"""


def test_fault_24_failing_physics_is_silent(tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})" + FAILING.format(engine="cpu")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("160\n", "", 0)
    assert not list(tmp_path.iterdir())
