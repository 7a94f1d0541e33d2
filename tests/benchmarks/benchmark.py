"""``make bench``: speed as ratios to bare physics, measured in turns within one run. Run it on an idle machine.

Every line is the median of ``REPEATS`` turns, with the fastest and slowest beside it; a turn measures each
contestant once, so that a slow minute of the machine slows all of them.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import torch
from mujoco import batch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from earlier import EarlierMAML
from earlier_rollout import as_before, earlier_rollout

from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.algorithms.varibad import VariBAD
from metarl.envs.api import TaskEnv
from metarl.envs.locomotion.half_cheetah import compile_model
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.registry import TaskDistribution, find_preset
from metarl.envs.small.bandit import Bandit
from metarl.networks.fused_gru import FusedGRU, forward
from metarl.networks.hyper import HyperPolicy
from metarl.networks.memory import GRU, WEIGHTS
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.presets import make
from metarl.presets.grid_navi import TUNED
from metarl.rollout import rollout
from metarl.runs.process import prepare_process
from metarl.types import Experience, MetaLearner, TrajectoryBatch

REPEATS = 11
NUM_TASKS, NUM_ENVS, HORIZON, FRAME_SKIP = 20, 20, 100, 5
HALF_CHEETAH = replace(HalfCheetahDir.presets["v5"], horizon=HORIZON)
FALLING = (("ant_dir", "maml2017"), ("hopper_rand_params", "promp"), ("humanoid_dir", "promp"), ("walker2d_dir", "v5"))
NUM_STEPS = NUM_TASKS * NUM_ENVS * HORIZON  # of one rollout; a meta-iteration of one inner step takes two


class BarePhysics:
    """``mujoco.batch`` stepping the worlds of a recorded rollout through its actions, and nothing else."""

    def __init__(self, recorded: TrajectoryBatch) -> None:
        self._batch = batch.Batch(compile_model(com_velocity_sensor=False), nsim=NUM_TASKS * NUM_ENVS)
        self._ctrl, self._qpos, self._qvel = (self._batch.bind(name) for name in ("ctrl", "qpos", "qvel"))
        self._start = recorded.obs[:, :, 0].flatten(0, 1).double().numpy()  # all but the x position
        self._actions = recorded.action.flatten(0, 1).transpose(0, 1).clamp(-1, 1).double().numpy()

    def run(self) -> None:
        self._batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        self._qpos[:, 1:], self._qvel[:] = self._start[:, :8], self._start[:, 8:]
        for action in self._actions:
            self._ctrl[:] = action
            self._batch.step(nstep=FRAME_SKIP)


class MetaIteration:
    """One MAML-TRPO iteration, its parts callable one by one."""

    def __init__(self, task: TaskDistribution = HALF_CHEETAH, num_envs: int = NUM_ENVS) -> None:
        self.learner, self.task = MAML(policy=GaussianMLP((64, 64), "tanh")), task
        self.env = task.make(NUM_TASKS, num_envs, seed=0)
        generator = torch.Generator().manual_seed(0)
        self.env.set_tasks(task.sample(NUM_TASKS, generator))
        self.state = self.learner.init(self.env.spec, generator)
        self.generator = generator
        self.batches: list[TrajectoryBatch] = []

    def rollout(self) -> TrajectoryBatch:
        actor = self.learner.actor(self.state, NUM_TASKS)
        return rollout(self.env, self.learner.act, actor, 1, self.generator)[0]

    def earlier_rollout(self) -> None:
        """In an environment of its own, which steps as it did."""
        earlier_rollout(
            self.earlier_env, self.learner.act, self.learner.actor(self.state, NUM_TASKS), 1, self.generator
        )

    @cached_property
    def earlier_env(self) -> TaskEnv:
        env = self.task.make(NUM_TASKS, self.env.num_envs, seed=0)
        env.set_tasks(self.task.sample(NUM_TASKS, torch.Generator().manual_seed(0)))
        return as_before(env)

    def sample(self) -> None:
        """Both rollouts, with credit and inner step between them."""
        actor = self.learner.actor(self.state, NUM_TASKS)
        before, actor = rollout(self.env, self.learner.act, actor, 1, self.generator)
        before = self.learner.credit(self.state, before)
        actor = self.learner.adapt(self.state, actor, before)
        after, _ = rollout(self.env, self.learner.act, actor, 1, self.generator)
        self.batches = [before, self.learner.credit(self.state, after)]

    def update(self) -> None:
        update(self.learner, self.state, self.batches)

    def earlier_update(self) -> None:
        EarlierMAML(policy=self.learner.policy).update(self.state, self.batches)


def update(learner: MetaLearner, state: Any, batches: list[TrajectoryBatch]) -> Any:
    task = torch.zeros(len(batches[0].reward), 0)
    new, _ = learner.update(state, Experience(task, None, batches), torch.Generator().manual_seed(0))
    return new


class TrialIteration:
    """One iteration of RL² or VariBAD, its parts callable one by one."""

    def __init__(self, task: TaskDistribution, learner: RL2 | VariBAD, *, trials: int, episodes: int) -> None:
        self.learner, self.trials, self.episodes = learner, trials, episodes
        self.num_steps = trials * episodes * task.horizon
        self.env = task.make(trials, 1, seed=0)
        self.generator = torch.Generator().manual_seed(0)
        self.env.set_tasks(task.sample(trials, self.generator))
        self.state = learner.init(self.env.spec, self.generator)

    def sample(self) -> None:
        actor = self.learner.actor(self.state, self.trials)
        self.batch, _ = rollout(self.env, self.learner.act, actor, self.episodes, self.generator)

    def update(self) -> None:
        self.state = update(self.learner, self.state, [self.learner.credit(self.state, self.batch)])


def trial_iterations() -> dict[str, TrialIteration]:
    """Half-cheetah as metaworld-algorithms, garage and varibad were timed at, and bandits by the thousand."""
    gru = RecurrentPolicy(memory="gru", memory_size=128)
    half_cheetah = replace(HalfCheetahDir.presets["v5"], horizon=HORIZON)
    navi = replace(make("grid_navi", "varibad"), learner=replace(TUNED, anneal_updates=0))
    return {
        "half-cheetah, 64 trials x 2 x 100": TrialIteration(
            half_cheetah, RL2(policy=gru, epochs=10), trials=64, episodes=2
        ),
        "the same, recurrent hypernetwork": TrialIteration(
            half_cheetah,
            RL2(policy=HyperPolicy(memory="gru", memory_size=128, code_size=25), epochs=10),
            trials=64,
            episodes=2,
        ),
        "the same, transformer 64, window 128": TrialIteration(
            half_cheetah, RL2(policy=replace(gru, memory="transformer", memory_size=64)), trials=64, episodes=2
        ),
        "bandit k5, 1000 trials x 100": TrialIteration(
            Bandit(arms=5), RL2(policy=replace(gru, memory_size=64), epochs=4, minibatches=8), trials=1000, episodes=100
        ),
        "VariBAD, GridNavi, 200 trials x 4 x 15": TrialIteration(
            navi.task, navi.learner, trials=navi.num_tasks, episodes=navi.episodes
        ),
    }


def gru_gradients(trials: int, steps: int, units: int) -> dict[str, Callable[[], object]]:
    """Forward and back through whole trials, as an epoch of RL² does: what PyTorch records, and our way back."""
    gru, generator = GRU(), torch.Generator().manual_seed(0)
    params = {name: value.requires_grad_() for name, value in gru.init(units, units, generator).items()}
    weights = [params[name] for name in WEIGHTS]
    x = torch.randn(steps, trials, units, generator=generator).requires_grad_()
    state = torch.zeros(trials, units)

    def recorded() -> object:
        return torch.autograd.grad(forward(x, state, weights).sum(), [x, *weights])

    def written_out() -> object:
        return torch.autograd.grad(FusedGRU.apply(x, state, *weights).sum(), [x, *weights])

    return {"recorded": recorded, "written out": written_out}


def gymnasium_vector(
    name: str, mode: str = "sync", *, num_envs: int = 8, num_steps: int = 100, **options: Any
) -> Callable[[], None]:
    """What people use now: gymnasium's own vector environment, in one process or (``async``) one a world."""
    env = gymnasium.make_vec(name, num_envs=num_envs, vectorization_mode=mode, **options)
    env.action_space.seed(0)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(num_steps)]

    def run() -> None:
        for action in actions:
            env.step(action)

    return run


def measure(
    contestants: dict[str, Callable[[], object]], turns: int = REPEATS, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each contestant in each turn, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, contestant in contestants.items():
            began = clock()
            contestant()
            if turn > 0:
                seconds[name].append(clock() - began)
    return seconds


def report(name: str, ratios: list[float], target: str) -> None:
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"  {name:<58} {middle:5.2f}  [{low:.2f}, {high:.2f}]   {target}")


def main() -> None:
    prepare_process(num_threads=0)
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}, torch {torch.__version__}, mujoco {mujoco.__version__}")

    ours, gym = MetaIteration(), gymnasium_vector("HalfCheetah-v5")
    bare = BarePhysics(ours.rollout())
    seconds = measure(
        {
            "bare": bare.run,
            "rollout": ours.rollout,
            "gymnasium": gym,
            "sampling": ours.sample,
            "update": ours.update,
            "earlier update": ours.earlier_update,
        }
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\nhalf-cheetah, {NUM_TASKS} tasks x {NUM_ENVS} worlds x {HORIZON} steps of {FRAME_SKIP} substeps")
    print(f"  bare mujoco.batch        {NUM_STEPS / median['bare']:>10,.0f} env steps/s")
    print(f"  our rollout with policy  {NUM_STEPS / median['rollout']:>10,.0f} env steps/s")
    print(f"  gymnasium SyncVectorEnv  {800 / median['gymnasium']:>10,.0f} env steps/s (8 worlds, no policy)")
    print(f"  MAML-TRPO iteration      {median['sampling']:.2f} s sampling + {median['update']:.2f} s update")
    print("\nratios: median [fastest, slowest turn]")

    def ratio(top: Callable[[int], float], bottom: Callable[[int], float]) -> list[float]:
        return [top(turn) / bottom(turn) for turn in range(REPEATS)]

    s = seconds
    report("rollout / bare physics, env steps/s", ratio(lambda i: s["bare"][i], lambda i: s["rollout"][i]), "")
    loops = {"bare": bare.run, "rollout": ours.rollout, "earlier rollout": ours.earlier_rollout}
    cpu = measure(loops, clock=time.process_time)
    for name, target in (("rollout", ">= 0.92"), ("earlier rollout", "as it was: every flag in every step")):
        ratios = [b / r for b, r in zip(cpu["bare"], cpu[name], strict=True)]
        report(f"{name} / bare physics, env steps a CPU second", ratios, target)
    report(
        "meta-iteration / bare physics of the same steps, seconds",
        ratio(lambda i: s["sampling"][i] + s["update"][i], lambda i: 2 * s["bare"][i]),
        "<= 2",
    )
    report(
        "rollout / gymnasium SyncVectorEnv, env steps/s",
        ratio(lambda i: NUM_STEPS / s["rollout"][i], lambda i: 800 / s["gymnasium"][i]),
        "",
    )

    report(
        "MAML-TRPO update / as it was (the KL's gradient differentiated), seconds",
        ratio(lambda i: s["update"][i], lambda i: s["earlier update"][i]),
        "< 0.75",
    )

    print("\nrollouts of bodies that fall, seconds if all worlds go on / if those that are through rest")
    for name, preset in FALLING:
        resting, busy = (MetaIteration(find_preset(name, preset)) for _ in range(2))
        busy.env.rest = lambda worlds: None
        seconds = measure({"resting": resting.rollout, "busy": busy.rollout})
        report(name, [b / r for b, r in zip(seconds["busy"], seconds["resting"], strict=True)], "")

    print("\nRL² and VariBAD iterations: median [fastest, slowest turn] seconds")
    for name, iteration in trial_iterations().items():
        seconds = measure({"sampling": iteration.sample, "update": iteration.update})
        median = {part: statistics.median(values) for part, values in seconds.items()}
        total = [a + b for a, b in zip(seconds["sampling"], seconds["update"], strict=True)]
        rate = iteration.num_steps / median["sampling"]
        print(
            f"  {name:<36} {statistics.median(total):.2f} [{min(total):.2f}, {max(total):.2f}]: "
            f"{median['sampling']:.2f} sampling ({rate:,.0f} env steps/s) + {median['update']:.2f} update"
        )

    print("\nGRU over trials and back, one thread, seconds as PyTorch records it / written out")
    torch.set_num_threads(1)
    for trials, steps, units in ((10, 1000, 64), (20, 1000, 128), (64, 200, 128)):
        seconds = measure(gru_gradients(trials, steps, units))
        ratios = [b / a for a, b in zip(seconds["written out"], seconds["recorded"], strict=True)]
        report(f"{trials} trials x {steps} steps, {units} units", ratios, "")
    torch.set_num_threads(os.cpu_count() or 1)

    large = MetaIteration(num_envs=10 * NUM_ENVS)
    large.sample()
    began = time.perf_counter()
    large.update()
    print(f"\nupdate on {20 * NUM_STEPS:,} samples: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
