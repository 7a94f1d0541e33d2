"""Every number of every task, learner, policy, outer step, baseline and experiment: it works, or it is refused by name.

Nothing else may come of it, and what is accepted makes an environment, or a learner's first state.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl import MAML, Experiment, GaussianMLP, RecurrentPolicy
from metarl.algorithms import ALGORITHMS
from metarl.algorithms.outer import PPO, TRPO, Gradient
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require_numbers
from metarl.envs.locomotion.half_cheetah_vel import HalfCheetahVel
from metarl.envs.locomotion.humanoid_dir import HumanoidDir
from metarl.envs.registry import TASKS
from metarl.envs.small.navigation import Navigation
from metarl.networks.values import LinearFeatureBaseline
from metarl.runs import playable
from metarl.runs.folder import create_run

pytestmark = pytest.mark.usefixtures("one_thread")
EXTREMES = [0, -1, 2**31, 2**63, 10**400, 1e20, math.inf, -math.inf, math.nan, 1e300, 1e-300, 1e-12, 1e9, 2**31 - 1]
EXTREMES += [True, "3", None, 0.5, -0.0]
SPEC = EnvSpec(3, 2, 5, terminates=False, has_success=False)
WHOLES: list[Any] = [cls() for name, cls in sorted(TASKS.items()) if cls.__module__.startswith("metarl.envs.")]
WHOLES += [*(cls() for cls in ALGORITHMS.values()), GaussianMLP(), RecurrentPolicy(), TRPO(), PPO(), Gradient()]
WHOLES += [LinearFeatureBaseline(), Experiment(task=Navigation(), learner=MAML())]
OWN_TASKS = [whole for whole in WHOLES if hasattr(whole, "spec")]


def numbers(whole: Any) -> Iterator[tuple[Any, str]]:
    """The fields that hold a number, or several."""
    for field in dataclasses.fields(whole):
        value = getattr(whole, field.name)
        kinds = {type(part) for part in (value if isinstance(value, tuple) and value else (value,))}
        if kinds <= {int, float}:
            yield whole, field.name


FIELDS = [pair for whole in WHOLES for pair in numbers(whole)]


def replace(whole: Any, name: str, value: Any) -> Any:
    """As of dataclasses, but without the check of types that tests alone have, which would answer first."""
    variant = copy.copy(whole)
    object.__setattr__(variant, name, value)
    variant.__post_init__()
    return variant


def changed(whole: Any, name: str, value: Any) -> Any:
    """None where it was refused as it should be."""
    held = getattr(whole, name)
    said = ""
    try:
        return replace(whole, name, (value, *held[1:]) if isinstance(held, tuple) else value)
    except BadField as error:
        said = str(error)
    assert name in said
    assert ": " in said
    return None


def test_there_are_numbers_to_change() -> None:
    names = {name for _, name in FIELDS}
    assert {"horizon", "num_tasks", "episodes", "memory_size", "inner_lr", "init_std", "kl_penalty"} <= names
    assert {"healthy", "hidden_sizes", "control_cost", "goal_seed", "timestep", "arms"} <= names


@settings(derandomize=True, database=None, deadline=None, max_examples=1000)
@given(pair=st.sampled_from(FIELDS), value=st.sampled_from(EXTREMES))
def test_fault_31_a_number_works_or_is_refused_by_name(pair: tuple[Any, str], value: Any) -> None:
    changed(*pair, value)


@pytest.mark.parametrize("pair", FIELDS, ids=lambda pair: f"{type(pair[0]).__name__}.{pair[1]}")
def test_fault_31_what_is_no_number_of_its_kind_is_refused(pair: tuple[Any, str]) -> None:
    whole, name = pair
    held = getattr(whole, name)
    wrong = [math.nan, "3", True]
    if not isinstance(held, tuple):  # an interval may have an infinite end
        wrong += [math.inf, -math.inf, 1e300, 2**63]
    if "int" in str({field.name: field.type for field in dataclasses.fields(whole)}[name]):
        wrong += [1e20, 0.5]
    for value in wrong:
        assert changed(whole, name, value) is None, value


@pytest.mark.parametrize("task", OWN_TASKS, ids=lambda task: task.name)
def test_fault_31_a_task_that_is_accepted_plays(task: Any) -> None:
    with torch.random.fork_rng():
        for _, name in numbers(task):
            for value in EXTREMES:
                variant = changed(task, name, value)
                if variant is None or name == "goal_seed":  # every seed of Meta-World's draws anew
                    continue
                env = variant.make(1, 1, seed=0, num_threads=1)
                env.set_tasks(variant.sample(1, torch.Generator().manual_seed(0)))
                env.reset()
                env.step(torch.zeros(1, 1, variant.spec.action_dim))


@pytest.mark.parametrize("learner", [cls() for cls in ALGORITHMS.values()], ids=lambda learner: type(learner).__name__)
def test_fault_31_a_learner_that_is_accepted_begins(learner: Any) -> None:
    policies = list(numbers(learner.policy)) if hasattr(learner, "policy") else []
    for value in EXTREMES:
        variants = [changed(*pair, value) for pair in numbers(learner)]
        for pair in policies:
            if (policy := changed(*pair, value)) is not None:
                variants.append(dataclasses.replace(learner, policy=policy))
        for variant in filter(None, variants):
            state = variant.init(SPEC, torch.Generator().manual_seed(0))
            assert all(weights.isfinite().all() for weights in state.meta.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HalfCheetahVel(horizon=2**31), "horizon is 2147483648: use a whole number of at most 2147483647"),
        (lambda: replace(HalfCheetahVel(), "horizon", 1e20), r"horizon is 1e\+20: use a whole number"),
        (lambda: MAML(inner_lr=math.inf), "inner_lr is inf: use 0 or a size between 1e-12 and 1e"),
        (lambda: GaussianMLP(init_std=1e300), r"init_std is 1e\+300: use"),
        (lambda: ALGORITHMS["ProMP"](kl_penalty=1e308), r"kl_penalty is 1e\+308: use"),
        (lambda: RecurrentPolicy(memory_size=2**31 - 1), "memory_size is 2147483647: use at least 1 and at most 16384"),
        (lambda: GaussianMLP((2**20,)), "hidden_sizes is .1048576,.: every layer needs .* at most 16384"),
        (lambda: MAML(adapt_steps=10**6), "adapt_steps is 1000000: use at least 0 and at most 1000"),
        (lambda: HalfCheetahVel(frame_skip=10**6), "frame_skip is 1000000: use at least 1 and at most 1000"),
        (lambda: Experiment(task=Navigation(), learner=MAML(), num_threads=10**6), "num_threads is 1000000: use"),
        (lambda: EnvSpec(0, 1, 1, terminates=False, has_success=False), "obs_dim is 0: use at least 1"),
    ],
)
def test_fault_31_a_refusal_names_field_and_value_and_remedy(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(BadField, match=message):
        make()


def test_seeds_are_larger_than_counts_and_intervals_may_be_open() -> None:
    assert Experiment(task=Navigation(), learner=MAML(), seed=2**63 - 1).seed == 2**63 - 1
    assert HumanoidDir(healthy=(1.0, math.inf)).healthy == (1.0, math.inf)
    assert HumanoidDir(healthy=None).healthy is None


def test_numbers_are_checked_where_annotations_are_strings() -> None:
    owner = dataclasses.make_dataclass("Owner", [("rate", "float | None", None), ("sizes", "tuple[int, ...]", ())])
    require_numbers(owner())
    require_numbers(owner(rate=1, sizes=(2, 3)))
    for bad in ({"rate": math.inf}, {"sizes": (2, 0.5)}, {"sizes": None}):
        with pytest.raises(BadField, match=next(iter(bad))):
            require_numbers(owner(**bad))


@pytest.mark.parametrize("name", ["num_tasks", "episodes", "horizon"])
def test_fault_31_experience_that_no_memory_holds_is_refused_before_a_folder_is_made(name: str, tmp_path: Path) -> None:
    large = {name: 2**31 - 20}  # 20 worlds of a task: a multiple
    task = Navigation(**large) if name == "horizon" else Navigation()
    experiment = Experiment(task=task, learner=MAML(), **({} if name == "horizon" else large), num_envs=4)
    with pytest.raises(BadField, match=f"{name} is 2147483628.* GiB, this machine has .*, use fewer"):
        create_run(experiment, tmp_path, "run")
    assert list(tmp_path.iterdir()) == []


def test_memory_is_that_of_this_machine() -> None:
    assert 2**28 < playable.physical_memory("cpu") < 2**50
