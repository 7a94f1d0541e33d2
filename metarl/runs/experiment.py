"""What a run is: a task distribution, a learner, and how much of each; and the folder it is recorded in."""

import re
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch

from metarl import lockstep
from metarl.envs.api import ENGINES, TaskEnv, find_engine
from metarl.envs.camera import VisibleTask
from metarl.envs.fields import BadField, require, require_numbers
from metarl.envs.registry import TaskDistribution
from metarl.envs.warmup import warm_if_cold
from metarl.evaluate import HELD_OUT_SEED, VALIDATION_SEED, validation_tasks
from metarl.fewshot import FewShotLearner
from metarl.seeds import stream_seed
from metarl.types import MetaLearner, Stage

CHANGEABLE = (  # on resume
    "iterations",
    "checkpoint_interval",
    "eval_interval",
    "validation_interval",
    "patience",
    "device",
    "physics",
    "num_threads",
    "deterministic",
)
MOST_THREADS = 1024

TaskT = TypeVar("TaskT", bound=TaskDistribution)
LearnerT = TypeVar("LearnerT", bound=MetaLearner | FewShotLearner)


@dataclass(frozen=True)
class Experiment(Generic[TaskT, LearnerT]):
    task: TaskT
    """The task distribution."""
    learner: LearnerT
    """The algorithm."""
    preset: str = ""
    """Named experiment preset to start from; other options override single fields."""
    num_tasks: int = 40
    """Tasks in a meta-batch."""
    num_envs: int = 20
    """Parallel worlds of each task."""
    episodes: int = 20
    """Episodes of each task for each batch of experience; a multiple of num_envs."""
    min_steps: int = 0
    """Environment steps that a task has at least in each batch of experience: where episodes end early, its worlds play
    further whole ones (Finn et al. 2017 collected steps, not episodes). Of learners with inner steps alone."""
    iterations: int = 100
    """Meta-updates."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Where policy, rewards and updates are computed: cpu, cuda, cuda:1 ..."""
    physics: str = "auto"
    """Physics engine: cpu (MuJoCo on threads), warp (MuJoCo Warp on the device), or auto, which fits the device;
    warp-sorted and warp-culled collide the same with less to look at, on a GPU not yet measured."""
    deterministic: bool = False
    """Equal bits from run to run on a GPU, where physics then takes some three times as long; CPUs always have them."""
    num_threads: int = 0
    """CPU threads; 0: every core."""
    checkpoint_interval: int = 10
    """Iterations between checkpoints; one is always written at the end and when the run is stopped."""
    eval_interval: int = 10
    """Iterations between tests on held-out tasks; 0: never."""
    eval_tasks: int = 20
    """Held-out tasks in such a test."""
    validation_interval: int = 0
    """Iterations between tests on validation tasks, which are neither the training's nor the test's; 0: never. The best
    checkpoint by them is kept (metarl evaluate --checkpoint best)."""
    validation_tasks: int = 20
    """Validation tasks in such a test."""
    validate_by: Literal["return", "success"] = "return"
    """What makes a checkpoint the best: return after adaptation, or success at any step of an episode after it."""
    patience: int = 0
    """Validations in a row without a better one after which the run ends; 0: it never ends early."""
    init_from: str = ""
    """Run folder whose parameters to begin with, at its newest checkpoint; everything else begins anew."""

    def __post_init__(self) -> None:
        """Refuses what cannot run, before any work."""
        require_numbers(self)
        counts = (
            "num_tasks",
            "num_envs",
            "episodes",
            "iterations",
            "checkpoint_interval",
            "eval_tasks",
            "validation_tasks",
        )
        require(self, *counts, at_least=1)
        require(self, "min_steps", "eval_interval", "validation_interval", "patience", "seed", at_least=0)
        require(self, "num_threads", at_least=0, at_most=MOST_THREADS)
        if self.episodes % self.num_envs:
            raise BadField(
                f"episodes is {self.episodes}: use a multiple of num_envs ({self.num_envs}), so that every world "
                "plays equally many"
            )
        limit = self.task.num_test_tasks
        if limit is not None and self.eval_tasks > limit:
            raise BadField(f"eval_tasks is {self.eval_tasks}: {self.task.name} has {limit} test tasks")
        if self.min_steps and not self.learner.adapt_steps:
            raise BadField(f"min_steps is {self.min_steps}: use 0, the learner plays trials of a number of episodes")
        if self.seed in (HELD_OUT_SEED, VALIDATION_SEED):
            which = "held-out" if self.seed == HELD_OUT_SEED else "validation"
            raise BadField(f"seed is {self.seed}: use another one, the {which} tasks are drawn from it")
        if self.validation_interval:
            validation_tasks(self.task, self.validation_tasks)  # refuses where there are not so many
        if self.patience and not self.validation_interval:
            raise BadField(f"patience is {self.patience}: give a validation_interval, too, by which it is counted")
        if self.validate_by not in ("return", "success"):
            raise BadField(f"validate_by is {self.validate_by!r}: use return or success")
        if self.validate_by == "success" and not self.task.spec.has_success:
            raise BadField(f"validate_by is success, which {self.task.name} does not define: use return")
        description = self.learner.describe()
        for part in (self.learner, description.policy):
            if (require_fits := getattr(part, "require_fits", None)) is not None:
                require_fits(self.task.spec)
        if self.num_envs % description.num_policies:
            raise BadField(
                f"num_envs is {self.num_envs}: use a multiple of {description.num_policies}, the policies of a task "
                f"that {description.name} divides its worlds among"
            )
        annealed = description.anneal_updates or 0
        if 0 < annealed < self.iterations:
            raise BadField(
                f"iterations is {self.iterations}: use at most anneal_updates ({annealed}), where the learning rate "
                "reaches zero, or begin a run with both of them higher, or with anneal_updates None, which follows it"
            )
        if self.device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", self.device):
            raise BadField(f"device is {self.device!r}: use cpu, cuda or cuda:0")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise BadField(f"device is {self.device!r}: this machine has no CUDA device, use cpu")
        if int(self.device.partition(":")[2] or 0) >= max(1, torch.cuda.device_count()):
            raise BadField(f"device is {self.device!r}: this machine has {torch.cuda.device_count()}, from cuda:0 on")
        if self.physics not in ENGINES:
            raise BadField(f"physics is {self.physics!r}: use one of {', '.join(ENGINES)}")
        if isinstance(self.task, VisibleTask):
            find_engine(self.physics, self.device)

    @property
    def episodes_per_env(self) -> int:
        """Consecutive episodes of a world in a batch: the length of a trial, for a learner that remembers."""
        return self.episodes // self.num_envs

    def stages(self) -> list[Stage]:
        """How its learner adapts when it is tested as it is trained."""
        return self.learner.stages(self.episodes_per_env)

    def warm(self) -> None:
        """Compiles the kernels of its physics, where it is the first of its kind on a GPU."""
        if self.device != "cpu" and self.physics != "cpu":
            warm_if_cold(self.task, device=self.device, deterministic=self.deterministic, physics=self.physics)

    def make_env(self, num_tasks: int, num_envs: int, *, stream: str) -> TaskEnv:
        """An environment of this experiment's tasks; ``stream`` names the random stream of its resets."""
        self.warm()
        return lockstep.make_env(
            self.task,
            num_tasks,
            num_envs,
            seed=stream_seed(self.seed, stream),
            device=self.device,
            physics=self.physics,
            num_threads=self.num_threads,
        )
