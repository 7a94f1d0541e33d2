"""Random dynamics: how the multipliers of a task are drawn, and where they go."""

import numpy as np
import pytest
import torch
from mujoco_checks import make_worlds, random_actions, sample
from torch import Tensor

from envs.api import find_preset


@pytest.mark.parametrize(
    ("name", "count", "bodies", "dofs"),
    [
        ("walker2d_rand_params", 65, 8, 9),
        ("hopper_rand_params", 41, 5, 6),
        ("half_cheetah_rand_params", 68, 8, 9),
        ("ant_rand_params", 112, 14, 14),
    ],
)
def test_multipliers_are_log_uniform(name: str, count: int, bodies: int, dofs: int) -> None:
    """u = log m / log base of 2,000 tasks: |u| <= 3, mean and variance 0 and 3 within 6 standard errors."""
    multipliers = sample(find_preset(name), 2000).double()
    assert multipliers.shape == (2000, count)
    damping = torch.arange(count).clamp(4 * bodies, 4 * bodies + dofs - 1) == torch.arange(count)
    u = multipliers.log() / torch.where(damping, 1.3, 1.5).log()
    assert 2.99 < u.abs().max() <= 3 + 1e-5
    assert u.mean(0).abs().max() < 6 * np.sqrt(3 / 2000)
    assert torch.corrcoef(u.T).fill_diagonal_(0).abs().max() < 6 / np.sqrt(2000)
    assert (u.var(0) - 3).abs().max() < 6 * np.sqrt((81 / 5 - 9) / 2000)


def test_every_multiplier_reaches_its_own_number() -> None:
    """A task with one multiplier doubled changes one number of the model."""
    task = find_preset("hopper_rand_params")
    worlds = make_worlds(task, 41)
    worlds.set_tasks(torch.ones(41, 41) + torch.eye(41))
    fields = ("body_mass", "body_inertia", "dof_damping", "geom_friction")
    numbers: Tensor = torch.cat([worlds.physics.expand(f).flatten(1) for f in fields], dim=1)
    own = torch.cat([torch.from_numpy(getattr(task.model(), f)).flatten() for f in fields])
    assert torch.equal(numbers, own * (torch.ones(41, 41) + torch.eye(41)).double())


def test_an_environment_without_tasks_has_the_bodys_own_dynamics() -> None:
    """Also after its state was saved and loaded: no task is no multiplier of zero."""
    task = find_preset("hopper_rand_params")
    env, own = (task.make(2, 1, seed=0, num_threads=1) for _ in range(2))
    own.set_tasks(torch.ones(2, 41))
    own.reset(), env.reset()
    env.load_state_dict(env.state_dict())
    action = random_actions(task, 2, 1)
    assert torch.equal(env.step(action).next_obs, own.step(action).next_obs)
