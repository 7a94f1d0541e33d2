"""What every MuJoCo task has to pass, and the tools its own tests are made of."""

from collections.abc import Callable

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.mujoco_task import MujocoTask, MujocoWorlds
from metarl.envs.physics import make_physics
from metarl.envs.worlds import BatchedTaskEnv

Array = NDArray[np.float64]


def make_worlds(task: MujocoTask, num_worlds: int, *, num_threads: int = 1) -> MujocoWorlds:
    """Worlds that report in the engine's own float64, so that bits can be compared."""
    physics = make_physics(task.model(), num_worlds, num_threads=num_threads)
    return MujocoWorlds(task, physics, torch.device("cpu"), dtype=torch.float64)


def make_env(task: MujocoTask, num_tasks: int, num_envs: int, *, seed: int = 0) -> BatchedTaskEnv:
    return task.make(num_tasks, num_envs, seed=seed, num_threads=1)


def sample(task: MujocoTask, num_tasks: int, seed: int = 0) -> Tensor:
    return task.sample(num_tasks, torch.Generator().manual_seed(seed))


def start(worlds: MujocoWorlds, seed: int = 0) -> None:
    """Draws an initial state in every world."""
    worlds.reset(everywhere(worlds), torch.Generator().manual_seed(seed))


def put(worlds: MujocoWorlds, qpos: Array, qvel: Array) -> None:
    """Starts every world in a given state, one for all or one each."""
    worlds.physics.reset(everywhere(worlds))
    worlds.physics.bind("qpos")[:] = torch.from_numpy(qpos)
    worlds.physics.bind("qvel")[:] = torch.from_numpy(qvel)
    worlds.physics.forward(everywhere(worlds))


def everywhere(worlds: MujocoWorlds) -> Tensor:
    return torch.ones(worlds.physics.num_worlds, dtype=torch.bool)


def random_actions(task: MujocoTask, *shape: int, bound: float = 1.0) -> Tensor:
    draws = torch.rand(*shape, task.spec.action_dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (2 * draws - 1) * bound


def bits_of(worlds: MujocoWorlds, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Observations and rewards [time world ...] of a rollout from the present state."""
    outcomes = [(worlds.step(action).reward, worlds.observe()) for action in actions]
    return torch.stack([obs for _, obs in outcomes]), torch.stack([reward for reward, _ in outcomes])


def qpos_and_qvel(worlds: MujocoWorlds) -> tuple[Array, Array]:
    return worlds.physics.bind("qpos").numpy().copy(), worlds.physics.bind("qvel").numpy().copy()


class Plain:
    """A loop of ``mj_step`` over one model, with every derived field up to date after a control step."""

    def __init__(self, model: mujoco.MjModel, qpos: Array, qvel: Array) -> None:
        self.model, self.data = model, mujoco.MjData(model)
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(model, self.data)

    def step(self, ctrl: Array, substeps: int) -> None:
        self.data.ctrl[:] = ctrl
        for _ in range(substeps):
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)


def scale_model(model: mujoco.MjModel, multipliers: Array) -> None:
    """Edits masses, inertias, dampings and friction number by number, and what follows from them."""
    rest = multipliers.astype(float)
    for field in (model.body_mass, model.body_inertia, model.dof_damping, model.geom_friction):
        field.reshape(-1)[:] *= rest[: field.size]
        rest = rest[field.size :]
    assert rest.size == 0
    mujoco.mj_setConst(model, mujoco.MjData(model))


def beside_plain_loops(
    task: MujocoTask, model_of: Callable[[Array], mujoco.MjModel]
) -> tuple[Array, MujocoWorlds, list[Plain]]:
    """Parameters of 5 tasks, their worlds, and a plain loop from the same state on a model of its own for each."""
    parameters, worlds = sample(task, 5, seed=3), make_worlds(task, 5, num_threads=2)
    worlds.set_tasks(sample(task, 5, seed=4))  # forgotten with the next line
    worlds.set_tasks(parameters)
    start(worlds, seed=2)
    models = [model_of(parameter) for parameter in parameters.numpy()]
    loops = [Plain(model, *state) for model, *state in zip(models, *qpos_and_qvel(worlds), strict=True)]
    return parameters.numpy(), worlds, loops


# --- checks


def check_a_world_has_the_same_bits_alone_and_among_others(task: MujocoTask, num_steps: int = 20) -> None:
    """Other actions, other tasks and another number of threads beside it make no difference."""
    parameters, actions = sample(task, 4), random_actions(task, num_steps, 4)
    together = make_worlds(task, 4, num_threads=2)
    together.set_tasks(parameters)
    start(together)
    qpos, qvel = qpos_and_qvel(together)
    obs, reward = bits_of(together, actions)
    for i in range(4):
        alone = make_worlds(task, 1)
        alone.set_tasks(parameters[i : i + 1])
        put(alone, qpos[i], qvel[i])
        obs_alone, reward_alone = bits_of(alone, actions[:, i : i + 1])
        assert torch.equal(obs_alone[:, 0], obs[:, i])
        assert torch.equal(reward_alone[:, 0], reward[:, i])


def check_the_first_observation_does_not_show_the_task(task: MujocoTask) -> None:
    """Different tasks in one state look the same; the next steps tell every one from the others."""
    parameters, worlds = sample(task, 6), make_worlds(task, 6)
    worlds.set_tasks(parameters)
    start(worlds)
    qpos, qvel = qpos_and_qvel(worlds)
    put(worlds, qpos[0], qvel[0])
    first = worlds.observe()
    assert torch.equal(first, first[:1].expand_as(first))
    obs, reward = bits_of(worlds, random_actions(task, 10, 1).expand(10, 6, -1))
    seen = torch.cat([obs, reward[..., None]], dim=-1)
    assert len(seen.unique(dim=1)[0]) == len(parameters.unique(dim=0))


def check_resets(task: MujocoTask) -> None:
    """Initial states differ between worlds and episodes and repeat with their seed, whatever the task."""
    env, again, other = (make_env(task, 2, 20, seed=seed) for seed in (7, 7, 8))
    for e in (env, again, other):
        e.set_tasks(sample(task, 2))
    first, second = env.reset().flatten(0, 1), env.reset().flatten(0, 1)
    assert len(torch.cat([first, second]).unique(dim=0)) == 80
    assert torch.equal(first, again.reset().flatten(0, 1))
    assert not torch.equal(first, other.reset().flatten(0, 1))


def check_a_masked_reset_leaves_the_other_worlds_bits_alone(task: MujocoTask) -> None:
    """State with its warm start, observation, and what the reward measures, if anything."""
    worlds = make_worlds(task, 6, num_threads=2)
    worlds.set_tasks(sample(task, 6))
    start(worlds)
    bits_of(worlds, random_actions(task, 40, 6))

    def everything() -> list[Tensor]:
        state = torch.cat([x.reshape(6, -1) for x in worlds.physics.state_dict().values()], 1)
        return [state, worlds.observe(), task.measure(worlds.physics).reshape(6, -1)]

    mask = torch.tensor([True, False, False, True, False, True])
    before = everything()
    worlds.reset(mask, torch.Generator().manual_seed(3))
    for old, new in zip(before, everything(), strict=True):
        assert torch.equal(old[~mask], new[~mask])
        assert old.numel() == 0 or (old[mask] != new[mask]).any(1).all()


def check_a_checkpoint_restores_the_dynamics(task: MujocoTask) -> None:
    """A new environment, and one that had other tasks, go on as the first one, also through a reset."""
    env = make_env(task, 3, 2)
    env.set_tasks(sample(task, 3))
    env.reset()
    actions = random_actions(task, 10, 3, 2)
    for action in actions[:5]:
        env.step(action)
    state = env.state_dict()
    fresh, used = make_env(task, 3, 2, seed=5), make_env(task, 3, 2, seed=6)
    used.set_tasks(sample(task, 3, seed=9))
    used.reset()
    for e in (fresh, used):
        e.load_state_dict(state)
    for action in actions[5:]:
        steps = [e.step(action) for e in (env, fresh, used)]
        for step in steps[1:]:
            assert torch.equal(steps[0].next_obs, step.next_obs)
            assert torch.equal(steps[0].reward, step.reward)
    assert torch.equal(env.reset(), fresh.reset())


def check_that_only_numbers_leave(task: MujocoTask, num_steps: int = 50, num_tasks: int = 4) -> None:
    """Random, bang-bang and absurd actions in 2 worlds a task; once the physics of the first world is blown up."""
    env = make_env(task, num_tasks, 2)
    env.set_tasks(sample(task, num_tasks))
    env.reset()
    for t, action in enumerate(random_actions(task, num_steps, num_tasks, 2).float()):
        kind = t // 5 % 4
        wild = [action, action.sign(), 1e30 * action, torch.full_like(action, torch.inf * (-1) ** (t // 20))][kind]
        if t == num_steps // 2:
            env.worlds.physics.bind("qvel")[0] = 1e12
        step = env.step(wild)
        for x in (step.obs, step.next_obs, step.reward):
            assert x.isfinite().all(), f"step {t}"
            assert x.dtype == torch.float32
        assert step.obs.shape == (num_tasks, 2, task.spec.obs_dim)
        assert step.reward.shape == step.terminated.shape == step.truncated.shape == (num_tasks, 2)
        assert task.spec.terminates or not step.terminated.any()
        if t == num_steps // 2:
            assert (step.diverged[0, 0], step.truncated[0, 0], step.reward[0, 0]) == (True, True, 0.0)


def check_tasks_do_not_depend_on_the_number_of_worlds(task: MujocoTask) -> None:
    """Three draws of the task stream while 1 or 4 worlds a task are reset and stepped in between."""

    def draws(num_envs: int) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        env, drawn = make_env(task, 6, num_envs), []
        for _ in range(3):
            drawn.append(task.sample(6, generator))
            env.set_tasks(drawn[-1])
            env.reset()
            env.step(torch.zeros(6, num_envs, task.spec.action_dim))
        return torch.stack(drawn)

    assert torch.equal(draws(1), draws(4))
    assert draws(1).unique().numel() > 1


CHECKS = (
    check_a_world_has_the_same_bits_alone_and_among_others,
    check_the_first_observation_does_not_show_the_task,
    check_resets,
    check_a_masked_reset_leaves_the_other_worlds_bits_alone,
    check_a_checkpoint_restores_the_dynamics,
    check_that_only_numbers_leave,
    check_tasks_do_not_depend_on_the_number_of_worlds,
)
