"""The worlds of several Meta-World tasks, each on its own model, stepped together."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.api import find_engine
from metarl.envs.fields import BadField
from metarl.envs.metaworld.resets import STATE, starts
from metarl.envs.metaworld.sawyer import SAWYER, SawyerTask, Terms
from metarl.envs.metaworld.scene import FIELDS, HAND_HIGH, HAND_LOW, Names, Scene
from metarl.envs.metaworld.simulation import FRAME_SKIP, MOCAP_QUAT, compile_model
from metarl.envs.physics import Physics, make_physics, multiply, write
from metarl.envs.physics.cuda_streams import Streams
from metarl.envs.worlds import Outcome

ACTION_SCALE = 0.01  # m that the mocap body moves a step at full action
MIDDLE = (0.0, 0.6, 0.15)  # m; of the space above the table
FRAME = 18  # numbers observed of one moment
BUFFERS = {"max_contacts": 64, "max_constraints": 256}  # a world; C MuJoCo meets at most 49 and 197 in random play
ENVIRONMENTS = tuple(sorted(SAWYER))

Where = Int[Tensor, " world"] | slice  # a slice costs less than an index


class TaskWorlds:
    """Worlds of one task, in the precision of their physics."""

    def __init__(
        self,
        task: SawyerTask,
        num_worlds: int,
        *,
        reward: str = "v2",
        show_goal: bool = False,
        standardize: bool = False,
        device: str | torch.device = "cpu",
        physics: str = "auto",
        num_threads: int = 0,
    ) -> None:
        self.task = task
        self._reward = task.reward if reward == "v2" else task.reward_v1
        self._show_goal, self._num_threads = show_goal, num_threads
        model = compile_model(task.model, task.touch)
        self.physics = make_physics(
            model, num_worlds, engine=physics, device=device, num_threads=num_threads, **BUFFERS
        )
        fields = (*FIELDS, "sensordata") if task.touch else FIELDS
        self._names = Names(model, {name: self.physics.bind(name) for name in fields})
        self._state = {name: self.physics.bind(name) for name in STATE}
        self._body_pos = self.physics.expand("body_pos")
        self._mocap, self._quat = self._state["mocap_pos"][:, 0], self._state["mocap_quat"][:, 0]
        self._low, self._high = self._mocap.new_tensor(task.hand_low), self._mocap.new_tensor(task.hand_high)
        self._upright = self._mocap.new_tensor(MOCAP_QUAT)
        hidden = (0.0, 0.0, 0.0)
        low = (task.goal_low or task.hand_low) if show_goal else hidden
        high = (task.goal_high or task.hand_high) if show_goal else hidden
        unbounded = [torch.inf] * (FRAME - 4)
        frame_low, frame_high = [*HAND_LOW, -1.0, *(-x for x in unbounded)], [*HAND_HIGH, 1.0, *unbounded]
        self._obs_low = self._mocap.new_tensor([*frame_low, *frame_low, *low])
        self._obs_high = self._mocap.new_tensor([*frame_high, *frame_high, *high])
        self.vec = torch.zeros(num_worlds, len(task.vec_low), dtype=torch.float64)
        self.episode: dict[str, Tensor] = {}
        self.frame = self._mocap.new_zeros(num_worlds, FRAME)
        self.obs = self._mocap.new_zeros(num_worlds, 2 * FRAME + 3)
        num_objects = task.objects(Scene(self._names, {}, self._mocap.new_zeros(num_worlds, 4))).shape[-1] // 7
        center, scale = _standard(num_objects, show_goal) if standardize else ([0.0], [1.0])
        self.center, self.scale = self._mocap.new_tensor(center), self._mocap.new_tensor(scale)

    def set_goals(self, vec: Float[Tensor, "world vec"]) -> None:
        """Gives each world its random vector."""
        self.vec = vec.cpu().double()
        rows, row = torch.unique(self.vec, dim=0, return_inverse=True)
        self._row = row.to(self.physics.device)
        self._starts = starts(self.task, rows.numpy(), num_threads=self._num_threads).to(self._mocap)
        if not self.episode:
            self.episode = {name: value[self._row].clone() for name, value in self._starts.episode.items()}

    def reset(self, mask: Bool[Tensor, " world"]) -> None:
        """Puts the worlds of ``mask`` to where their episodes begin."""
        row, found = self._row, self._starts
        self.physics.reset(mask)
        for name, value in found.state.items():
            write(self._state[name], mask, value[row])
        write(self._body_pos, mask, found.body_pos[row])
        for name, remembered in found.episode.items():
            write(self.episode[name], mask, remembered[row])
        frame = found.observed[row]
        write(self.frame, mask, frame)
        goal = self.episode["target"] if self._show_goal else frame.new_zeros(len(frame), 3)
        write(self.obs, mask, torch.cat([frame, frame, goal], dim=-1))  # as reset returns it: not clipped

    def act(self, action: Float[Tensor, "world 4"]) -> None:
        """Drags the mocap body and sets the gripper; ``action`` in [-1, 1].

        The offset is rounded to the action's own precision, as Meta-World's is.
        """
        self._action = action.to(self._mocap)
        self._mocap.add_((action[:, :3] * ACTION_SCALE).to(self._mocap)).clamp_(self._low, self._high)
        self._quat.copy_(self._upright)
        effort = self._action[:, 3:]
        self._state["ctrl"].copy_(torch.cat([effort, -effort], dim=-1))

    def observe(self) -> Scene:
        """Observes where the step led, and returns it as the reward sees it."""
        scene = Scene(self._names, self.episode, self._action)
        frame = self.task.observed(scene)
        goal = scene.target if self._show_goal else torch.zeros_like(scene.raw_hand)
        self.obs = torch.cat([frame, self.frame, goal], dim=-1).clamp(self._obs_low, self._obs_high)
        self.frame = frame
        return scene

    def evaluate(self) -> tuple[Terms, Bool[Tensor, " world"], Scene]:
        """Observes; returns the reward's terms, where the task is solved, and the scene."""
        scene = self.observe()
        terms = self._reward(scene, self.frame[:, 4:7])
        return terms, self.task.success(scene, terms), scene

    def state_dict(self) -> dict[str, Tensor]:
        """Everything the next step depends on, but the random vectors."""
        remembered = {f"episode/{name}": value.clone() for name, value in self.episode.items()}
        kept = {"frame": self.frame.clone(), "obs": self.obs.clone(), "body_pos": self._body_pos.clone()}
        return kept | remembered | self.physics.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._body_pos.copy_(state["body_pos"])
        self.frame, self.obs = (state[name].to(self._mocap).clone() for name in ("frame", "obs"))
        for name, value in self.episode.items():
            value.copy_(state[f"episode/{name}"])
        self.physics.load_state_dict(state)


class MetaWorlds:
    """:class:`metarl.envs.worlds.Worlds` over any mix of tasks; a world's task and its goal are its parameter.

    Parameter of a world: index of the task among the 50 in alphabetical order, then its random vector, padded by
    zeros. Worlds of one task share a batch. On CPU threads, while one batch is simulated, the one before is rewarded;
    on a GPU every batch has a stream of its own.
    """

    def __init__(
        self,
        num_worlds: int,
        *,
        reward: str = "v2",
        show_goal: bool = False,
        standardize: bool = False,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        physics: str = "auto",
        num_threads: int = 0,
    ) -> None:
        self.num_worlds = num_worlds
        self._options: dict[str, Any] = {"reward": reward, "show_goal": show_goal, "standardize": standardize}
        self._options |= {"physics": physics, "num_threads": num_threads, "device": device}
        self._device, self._dtype = device, dtype
        engine = find_engine(physics, device)
        self._threads = engine == "cpu" and num_threads != 1
        self._physics_device = torch.device("cpu") if engine == "cpu" else device
        self._streams = Streams(self._physics_device)
        self._groups: dict[int, TaskWorlds] = {}
        self._where: dict[int, Where] = {}
        self._factors: dict[str, float] = {}
        self._task = torch.zeros(num_worlds, 0)
        self._overflowed = 0  # in worlds given up since
        self._pool = ThreadPoolExecutor(1)

    def set_tasks(self, task: Float[Tensor, "world parameter"]) -> None:
        given = task[:, 0].cpu()
        index = given.long()
        unknown = given[(index < 0) | (index >= len(ENVIRONMENTS)) | (index != given)]
        if unknown.numel():
            raise BadField(f"task begins with {float(unknown[0]):g}, the environment: use 0 to {len(ENVIRONMENTS) - 1}")
        self._task = task.clone()
        where = {int(kind): _slice((index == kind).nonzero()[:, 0], self._physics_device) for kind in index.unique()}
        groups = {kind: self._group(kind, len(index[worlds])) for kind, worlds in where.items()}
        self._overflowed += sum(
            g.physics.num_overflowed for kind, g in self._groups.items() if g is not groups.get(kind)
        )
        self._groups, self._where = groups, where
        for kind, group in self._groups.items():
            group.set_goals(task[where[kind], 1 : 1 + group.vec.shape[1]])

    def seed(self, seed: int) -> None:
        """As :class:`metarl.envs.worlds.SeededWorlds`: nothing here draws, and a reset leaves nothing as it was."""

    def _group(self, kind: int, num_worlds: int) -> TaskWorlds:
        old = self._groups.get(kind)
        if old is not None and old.physics.num_worlds == num_worlds:
            return old
        group = TaskWorlds(SAWYER[ENVIRONMENTS[kind]], num_worlds, **self._options)
        multiply(group.physics, compile_model(group.task.model, group.task.touch), self._factors)
        return group

    def scale_model(self, factors: Mapping[str, float]) -> None:
        """Episodes begin where they do in the model as it is."""
        self._factors, self._groups = dict(factors), {}

    def groups(self) -> Iterator[tuple[TaskWorlds, Where]]:
        """The worlds of each task, and which of all they are."""
        for kind, group in self._groups.items():
            yield group, self._where[kind]

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        if not self._groups:
            raise RuntimeError("a Meta-World environment has no worlds before set_tasks")
        mask = mask.to(self._physics_device)
        with self._streams.forked(len(self._groups)):
            for i, (group, where) in enumerate(self.groups()):
                if mask.is_cuda or mask[where].any():  # asking would make a GPU wait
                    with self._streams.on(i):
                        group.reset(mask[where])

    def observe(self) -> Float[Tensor, "world obs"]:
        obs = torch.empty(self.num_worlds, 2 * FRAME + 3, dtype=self._dtype, device=self._physics_device)
        for group, where in self.groups():
            obs[where] = ((group.obs - group.center) * group.scale).to(self._dtype)
        return obs.to(self._device)

    @property
    def num_overflowed(self) -> int:
        return self._overflowed + sum(group.physics.num_overflowed for group in self._groups.values())

    def pose(self, world: int) -> Float[Tensor, " qpos"]:
        kind = int(self._task[world, 0])
        row = int((self._task[:world, 0] == kind).sum())
        return self._groups[kind].physics.bind("qpos")[row].cpu().clone()

    def step(self, action: Float[Tensor, "world act"]) -> Outcome:
        action = action.to(self._physics_device)
        reward = torch.empty(self.num_worlds, dtype=self._dtype, device=action.device)
        success, diverged = torch.empty(2, self.num_worlds, dtype=torch.bool, device=action.device)
        never = torch.zeros_like(diverged)
        with self._streams.forked(len(self._groups)):
            for i, (group, where) in enumerate(self.groups()):
                with self._streams.on(i):
                    group.act(action[where])
            for i, ((group, where), failed) in enumerate(zip(self.groups(), self._simulate(), strict=True)):
                with self._streams.on(i):
                    terms, solved, _ = group.evaluate()
                    reward[where] = terms.reward.masked_fill(failed, 0.0).to(self._dtype)
                    success[where] = solved & ~failed
                    diverged[where] = failed
        return Outcome(*(x.to(self._device) for x in (reward, never, success, diverged)))

    def _simulate(self) -> Iterator[Bool[Tensor, " world"]]:
        """Steps the physics of one task after the other, ahead of their rewards where there is a thread for it."""
        physics = [group.physics for group in self._groups.values()]
        if self._threads and len(physics) > 1:
            return self._pool.map(lambda engine: engine.step(FRAME_SKIP), physics)
        alone = (self._step_alone(i, engine) for i, engine in enumerate(physics))
        return iter(list(alone)) if self._physics_device.type == "cuda" else alone  # all begin before any is rewarded

    def _step_alone(self, i: int, engine: Physics) -> Bool[Tensor, " world"]:
        with self._streams.on(i):
            return engine.step(FRAME_SKIP)

    def state_dict(self) -> dict[str, Tensor]:
        state = {"task": self._task.clone()}
        for kind, group in self._groups.items():
            state |= {f"{kind}/{name}": value for name, value in group.state_dict().items()}
        return state

    def part(self, rows: slice) -> dict[str, Tensor]:
        """:meth:`state_dict` of these worlds alone."""
        worlds = torch.arange(self.num_worlds, device=self._physics_device)
        state = {"task": self._task[rows].clone()}
        for kind, group in self._groups.items():
            of_kind = worlds[self._where[kind]]
            if (own := (of_kind >= rows.start) & (of_kind < rows.stop)).any():
                state |= {f"{kind}/{name}": value[own] for name, value in group.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state["task"].shape[1]:  # else none were given yet
            self.set_tasks(state["task"])
        for kind, group in self._groups.items():
            prefix = f"{kind}/"
            group.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _standard(num_objects: int, show_goal: bool) -> tuple[list[float], list[float]]:
    """What to subtract from an observation, and to multiply it by, so that all that varies is of order 1."""
    none, nothing = [0.0] * 7, [1.0] * 7
    center, scale = [*MIDDLE, 0.5], [10.0, 10.0, 10.0, 2.0]
    for present in (num_objects > 0, num_objects > 1):
        center += [*MIDDLE, 0.0, 0.0, 0.0, 0.0] if present else none
        scale += [10.0, 10.0, 10.0, 1.0, 1.0, 1.0, 1.0] if present else nothing
    goal = (list(MIDDLE), [10.0] * 3) if show_goal else ([0.0] * 3, [1.0] * 3)
    return 2 * center + goal[0], 2 * scale + goal[1]


def _slice(worlds: Int[Tensor, " world"], device: torch.device) -> Where:
    """The same worlds as a slice, where they lie side by side."""
    first, last = int(worlds[0]), int(worlds[-1])
    return slice(first, last + 1) if last - first + 1 == len(worlds) else worlds.to(device)
