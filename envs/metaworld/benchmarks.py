"""Meta-World's benchmarks as task distributions: ML1, ML10, ML25, ML45 and the multi-task MT1, MT10, MT25, MT50.

A task is an environment and one of its 50 goals; task parameter: index of the environment among the 50 in alphabetical
order, then its random vector, padded by zeros to 6 numbers. ML benchmarks hide the goal and test on goals (ML1) or
environments that training never sees; MT benchmarks show it and test on the training tasks.

| index | observation                                                        | unit |
|-------|--------------------------------------------------------------------|------|
| 0-2   | position of the hand                                               | m    |
| 3     | opening of the gripper, 0 closed to 1                              |      |
| 4-17  | position and quaternion of up to two objects, padded by zeros      | m    |
| 18-35 | 0-17 one step before                                               |      |
| 36-38 | goal; zeros where it is hidden                                     | m    |

Action: displacement of the hand along x, y, z [cm] and effort that closes the gripper, each in [-1, 1].
Reward: version 2 (0 to 10, solved = 10) or 1 (unbounded). Success is a flag of every step. Never terminates;
500 steps. Source: Yu et al. 2020, package ``metaworld`` 3.0.0.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal, Signals
from metarl.envs.fields import BadField, require
from metarl.envs.metaworld.goals import GOALS, choose, draw_goals, first_of_each
from metarl.envs.metaworld.sawyer import SAWYER
from metarl.envs.metaworld.simulation import FRAME_SKIP, SUBSTEP
from metarl.envs.metaworld.view import goal_model
from metarl.envs.metaworld.worlds import ACTION_SCALE, ENVIRONMENTS, FRAME, MetaWorlds
from metarl.envs.signals import point
from metarl.envs.worlds import BatchedTasks

LONGEST_VECTOR = 6


@dataclass(frozen=True)
class MetaWorld(BatchedTasks):
    """What the benchmarks share."""

    joinable: ClassVar[bool] = True
    show_goal: ClassVar[bool] = False
    frame_skip: ClassVar[int] = FRAME_SKIP

    horizon: int = 500
    """Steps of an episode."""
    reward: Literal["v2", "v1"] = "v2"
    """Version of the reward: v2, 0 to 10, or v1, the unbounded one of the first benchmark."""
    standardize: bool = False
    """Observe positions in units of 10 cm from the middle of the table, and the opening from -1 to 1. Meta-World's are
    in m, so that what matters hardly moves a network's inputs."""
    goal_seed: int = 0
    """Seed of the benchmark's goals, Meta-World's own; not the seed of the run, so that runs of a study share them."""
    validation_goals: int = 0
    """Goals of each training environment, of 50, that training never sees, to choose a checkpoint by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward not in ("v1", "v2"):
            raise BadField(f"reward is {self.reward!r}: use v2 or v1")
        require(self, "goal_seed", at_least=0, at_most=2**32 - 2)
        require(self, "validation_goals", at_least=0, at_most=GOALS - 1)

    @property
    @abstractmethod
    def all_goals(self) -> Mapping[str, Tensor]:
        """Task parameters [goal, 7] of each training environment, those kept for validation last."""

    @property
    def train_goals(self) -> Mapping[str, Tensor]:
        """Task parameters [goal, 7] that training draws from, by environment."""
        return {name: goals[: GOALS - self.validation_goals] for name, goals in self.all_goals.items()}

    @property
    @abstractmethod
    def test_goals(self) -> Mapping[str, Tensor]:
        """Task parameters [goal, 7] of each test environment."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(obs_dim=2 * FRAME + 3, action_dim=4, horizon=self.horizon, terminates=False, has_success=True)

    def signals(self) -> Signals:
        """In the units of Meta-World; numbers without any where :attr:`standardize` has rescaled them."""
        unit = "" if self.standardize else "m"
        frame = [*point("hand", unit), Signal("gripper opening")]
        for name in ("first object", "second object"):
            frame += [*point(name, unit), *(Signal(f"{name} quaternion {number}") for number in range(4))]
        before = [Signal(f"{signal.name} one step before", signal.unit) for signal in frame]
        moves = [Signal(f"hand displacement {axis}", "m", -ACTION_SCALE, ACTION_SCALE) for axis in "xyz"]
        action = (*moves, Signal("effort that closes the gripper", "", -1.0, 1.0))
        return Signals((*frame, *before, *point("goal", unit)), action, FRAME_SKIP * SUBSTEP)

    @property
    def num_test_tasks(self) -> int:
        return sum(map(len, self.test_goals.values()))

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 7"]:
        """Training tasks, equally many of each environment up to one; each takes its goals without replacement."""
        environments = list(self.train_goals.values())
        rest = torch.randperm(len(environments), generator=generator, device=generator.device).tolist()
        counts = [num_tasks // len(environments) + (rank < num_tasks % len(environments)) for rank in rest]
        return torch.cat([choose(goals, n, generator) for goals, n in zip(environments, counts, strict=True)])

    def published_tasks(self, num_tasks: int) -> Float[Tensor, "task 7"]:
        """The benchmark's test tasks, equally many of each environment up to one, from its first goal on."""
        if num_tasks > self.num_test_tasks:
            raise BadField(f"tasks is {num_tasks}: {self.name} has {self.num_test_tasks} test tasks")
        return first_of_each(list(self.test_goals.values()), num_tasks)

    def validation_tasks(self, num_tasks: int) -> Float[Tensor, "task 7"]:
        """Goals of the training environments that training never sees, equally many of each environment up to one."""
        kept = [goals[GOALS - self.validation_goals :] for goals in self.all_goals.values()]
        if num_tasks > sum(map(len, kept)):
            raise BadField(
                f"validation_tasks is {num_tasks}: {self.name} keeps {sum(map(len, kept))} goals for validation, use "
                "fewer tasks or more validation_goals, which training then never sees"
            )
        return first_of_each(kept, num_tasks)

    def labels(self, task: Float[Tensor, "task 7"]) -> list[str]:
        return [ENVIRONMENTS[int(index)] for index in task[:, 0]]

    def model_of(self, task: Float[Tensor, " 7"]) -> mujoco.MjModel:
        """As :class:`metarl.envs.camera.VisibleTask`."""
        sawyer = SAWYER[ENVIRONMENTS[int(task[0])]]
        return goal_model(sawyer, task[1 : 1 + len(sawyer.vec_low)].double().cpu().numpy())

    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> MetaWorlds:
        where: dict[str, Any] = {"device": device, "physics": physics, "num_threads": num_threads}
        shown: dict[str, Any] = {"show_goal": self.show_goal, "standardize": self.standardize}
        return MetaWorlds(num_worlds, reward=self.reward, **shown, **where)


def task_parameters(names: tuple[str, ...], seed: int) -> dict[str, Float[Tensor, "goal 7"]]:
    """All goals of a benchmark's environments, as task parameters."""
    found = {}
    for name, vecs in draw_goals(names, seed).items():
        found[name] = torch.zeros(GOALS, 1 + LONGEST_VECTOR, dtype=torch.float64)
        found[name][:, 0] = ENVIRONMENTS.index(name)
        found[name][:, 1 : 1 + vecs.shape[1]] = torch.from_numpy(vecs)
    return found


@dataclass(frozen=True)
class SingleTask(MetaWorld):
    """One environment, many goals."""

    env: str = "reach-v3"
    """The environment, one of Meta-World's 50."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.env not in SAWYER:
            raise BadField(f"env is {self.env!r}: use one of {', '.join(ENVIRONMENTS)}")

    @property
    def all_goals(self) -> Mapping[str, Tensor]:
        return task_parameters((self.env,), self.goal_seed)


@dataclass(frozen=True)
class ML1(SingleTask):
    """Meta-learning on one environment: 50 goals to train on, 50 others to test on."""

    name: ClassVar[str] = "ml1"

    @property
    def test_goals(self) -> Mapping[str, Tensor]:
        return task_parameters((self.env,), self.goal_seed + 1)  # as Meta-World's ML1


@dataclass(frozen=True)
class MT1(SingleTask):
    """One environment with its goal shown."""

    name: ClassVar[str] = "mt1"
    show_goal = True

    @property
    def test_goals(self) -> Mapping[str, Tensor]:
        return self.train_goals


@dataclass(frozen=True)
class MultiTask(MetaWorld):
    """Several environments."""

    train_environments: ClassVar[tuple[str, ...]]
    test_environments: ClassVar[tuple[str, ...]]

    @property
    def all_goals(self) -> Mapping[str, Tensor]:
        return task_parameters(self.train_environments, self.goal_seed)

    @property
    def test_goals(self) -> Mapping[str, Tensor]:
        if self.test_environments == self.train_environments:
            return self.train_goals
        return task_parameters(self.test_environments, self.goal_seed)


def _v3(names: str) -> tuple[str, ...]:
    return tuple(f"{name}-v3" for name in names.split())


@dataclass(frozen=True)
class ML10(MultiTask):
    """10 environments to train on, 5 others to test on."""

    name: ClassVar[str] = "ml10"
    train_environments = _v3(
        "reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open sweep basketball"
    )
    test_environments = _v3("drawer-open door-close shelf-place sweep-into lever-pull")


MT10_ENVIRONMENTS = _v3(
    "reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side window-open "
    "window-close"
)
MT25_ENVIRONMENTS = MT10_ENVIRONMENTS + _v3(
    "coffee-pull pick-out-of-hole disassemble pick-place-wall basketball stick-pull button-press-wall faucet-open "
    "door-lock lever-pull sweep-into faucet-close coffee-button button-press-topdown-wall dial-turn"
)


@dataclass(frozen=True)
class ML25(MultiTask):
    """25 environments to train on, 4 others to test on.

    Meta-World's ML25 also tests on basketball, which it trains on, with the goals of training: left out here.
    """

    name: ClassVar[str] = "ml25"
    train_environments = MT25_ENVIRONMENTS
    test_environments = _v3("door-close shelf-place sweep button-press")


@dataclass(frozen=True)
class ML45(MultiTask):
    """45 environments to train on, 5 others to test on."""

    name: ClassVar[str] = "ml45"
    train_environments = _v3(
        "assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall "
        "coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-open drawer-close drawer-open "
        "faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side handle-pull lever-pull "
        "pick-place-wall pick-out-of-hole push-back pick-place plate-slide plate-slide-side plate-slide-back "
        "plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push-wall push reach-wall "
        "reach shelf-place sweep-into sweep window-open window-close"
    )
    test_environments = _v3("bin-picking box-close hand-insert door-lock door-unlock")


@dataclass(frozen=True)
class MT10(MultiTask):
    """10 environments with their goals shown."""

    name: ClassVar[str] = "mt10"
    show_goal = True
    train_environments = test_environments = MT10_ENVIRONMENTS


@dataclass(frozen=True)
class MT25(MultiTask):
    """25 environments with their goals shown."""

    name: ClassVar[str] = "mt25"
    show_goal = True
    train_environments = test_environments = MT25_ENVIRONMENTS


@dataclass(frozen=True)
class MT50(MultiTask):
    """All 50 environments with their goals shown."""

    name: ClassVar[str] = "mt50"
    show_goal = True
    train_environments = test_environments = _v3(
        "assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press "
        "button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open "
        "door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side "
        "handle-press handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide "
        "plate-slide-side plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push "
        "stick-pull push push-wall push-back reach reach-wall shelf-place sweep-into sweep window-open window-close"
    )


for _benchmark in (ML1, ML10, ML25, ML45, MT1, MT10, MT25, MT50):
    _benchmark.presets = {version: _benchmark(reward=version) for version in ("v2", "v1")}
