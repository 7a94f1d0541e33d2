"""``make bench``: env steps a second of every task family, random actions, in turns on the same threads.

Beside ours: bare ``mujoco.batch`` stepping the same worlds through the same actions and resets, without observations,
rewards or clocks, and Gymnasium's vector environments of the same body, which know no tasks. SyncVectorEnv uses one
core, AsyncVectorEnv one a world. Episodes end and begin in all of them but the bare one, which copies their beginnings.
"""

import argparse
import os
import statistics
from collections.abc import Callable

import mujoco
import torch
from benchmark import gymnasium_vector, measure

from metarl.envs.metaworld.benchmarks import MetaWorld
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.physics.cpu import CpuPhysics
from metarl.envs.registry import TASKS, TaskDistribution, find_preset
from metarl.fewshot import FewShotTasks
from metarl.runs.process import prepare_process

NUM_TASKS, NUM_ENVS, NUM_STEPS, TURNS = 20, 20, 25, 5
GYM_ENVS, GYM_STEPS = 8, 50

NO_FORCES = {"contact_cost_weight": 0.0, "include_cfrc_ext_in_observation": False}
NO_PARTS = {f"include_{part}_in_observation": False for part in ("cinert", "cvel", "qfrc_actuator")}
GYMNASIUM = {  # the start of a task's name -> Gymnasium's environment of the same body, its options
    "ant": ("Ant-v5", NO_FORCES),
    "cartpole": ("CartPole-v1", {}),
    "half_cheetah": ("HalfCheetah-v5", {}),
    "hopper": ("Hopper-v5", {}),
    "humanoid": ("Humanoid-v5", NO_FORCES | NO_PARTS),
    "pendulum": ("Pendulum-v1", {}),
    "swimmer": ("Swimmer-v5", {}),
    "walker2d": ("Walker2d-v5", {}),
}


class Ours:
    """The batched environment of ``task`` and the actions of a turn."""

    def __init__(self, task: TaskDistribution) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tasks = task.sample(NUM_TASKS, generator)
        self.env = task.make(NUM_TASKS, NUM_ENVS, seed=0)
        self.env.set_tasks(self.tasks)
        self.env.reset()
        actions = torch.rand(NUM_STEPS, NUM_TASKS, NUM_ENVS, self.env.spec.action_dim, generator=generator)
        if self.env.spec.discrete:
            self.actions = torch.nn.functional.one_hot(actions.argmax(-1), actions.shape[-1]).float()
        else:
            self.actions = 2 * actions - 1

    def run(self) -> None:
        for action in self.actions:
            self.env.step(action)


class Bare:
    """``mujoco.batch`` on the worlds of ``ours``: a turn of theirs is recorded, and every turn here repeats it."""

    def __init__(self, task: MujocoTask, ours: Ours) -> None:
        physics = ours.env.worlds.physics
        self.engine, self.substeps = CpuPhysics(task.model(), physics.num_worlds), task.frame_skip
        task.apply_task(self.engine, ours.tasks.repeat_interleave(NUM_ENVS, dim=0))
        self.start = physics.state_dict()
        state = [physics.bind(name) for name in ("qpos", "qvel")]
        self.ctrl: list[torch.Tensor] = []
        self.begins: list[tuple[torch.Tensor, list[torch.Tensor]]] = []  # worlds that began anew, and where
        for action in ours.actions:
            step = ours.env.step(action)
            worlds = (step.terminated | step.truncated).flatten().nonzero()[:, 0]
            self.ctrl.append(physics.bind("ctrl").clone())
            self.begins.append((worlds, [field[worlds] for field in state]))
        self.bound = [self.engine.bind(name) for name in ("qpos", "qvel")]

    def run(self) -> None:
        self.engine.load_state_dict(self.start)
        controls = self.engine.bind("ctrl")
        for ctrl, (worlds, states) in zip(self.ctrl, self.begins, strict=True):
            controls.copy_(ctrl)
            self.engine._batch.step(nstep=self.substeps)
            if len(worlds):
                for field, values in zip(self.bound, states, strict=True):
                    field[worlds] = values


def rates(name: str, task: TaskDistribution) -> dict[str, float]:
    """Env steps a second by contestant, median over turns."""
    ours, cores = Ours(task), os.cpu_count() or 1
    contestants: dict[str, Callable[[], None]] = {"ours": ours.run}
    steps = {"ours": NUM_TASKS * NUM_ENVS * NUM_STEPS}
    if isinstance(task, MujocoTask):
        gym, options = next(found for start, found in GYMNASIUM.items() if name.startswith(start))
        contestants["bare"], steps["bare"] = Bare(task, ours).run, steps["ours"]
        for mode, num_envs in (("sync", GYM_ENVS), ("async", cores)):
            contestants[mode] = gymnasium_vector(gym, mode, num_envs=num_envs, num_steps=GYM_STEPS, **options)
            steps[mode] = num_envs * GYM_STEPS
    seconds = measure(contestants, TURNS)
    return {who: steps[who] / statistics.median(seconds[who]) for who in contestants}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="tasks whose name begins with this")
    options = parser.parse_args()
    prepare_process(num_threads=1)  # of torch, as in rollouts; physics takes every core
    mujoco.set_mju_user_warning(lambda message: None)  # Gymnasium's models have an attribute that MuJoCo deprecates
    print(f"\n{NUM_TASKS * NUM_ENVS} worlds, random actions, preset v5 or the only one, {os.cpu_count()} cores")
    print(f"{'':<24} {'':>7}env steps/s{'':>22} ours relative to")
    print(f"{'task':<24} {'ours':>9} {'bare':>9} {'sync':>9} {'async':>9} {'bare':>8} {'sync':>8} {'async':>8}")
    others = ("bare", "sync", "async")
    for name, kind in sorted(TASKS.items()):
        if issubclass(kind, MetaWorld | FewShotTasks) or not name.startswith(options.only):
            continue  # Meta-World: benchmark_metaworld.py
        found = rates(name, find_preset(name, "v5" if "v5" in kind.presets else None))
        numbers = [f"{found[who]:>9,.0f}" if who in found else f"{'':>9}" for who in ("ours", *others)]
        ratios = [f"{found['ours'] / found[who]:>8.2f}" if who in found else f"{'':>8}" for who in others]
        print(f"{name:<24}", *numbers, *ratios, flush=True)


if __name__ == "__main__":
    main()
