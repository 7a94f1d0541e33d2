"""Small PEARLs, and experience made by hand."""

import torch
from torch import Tensor

from metarl.algorithms.pearl import PEARL
from metarl.envs.api import EnvSpec
from metarl.networks.distributions import TanhGaussian
from metarl.types import TrajectoryBatch

SPEC = EnvSpec(obs_dim=2, action_dim=2, horizon=3, terminates=False, has_success=False)
SMALL = PEARL(
    latent_size=3,
    hidden_sizes=(8,),
    encoder_sizes=(8,),
    num_slots=4,
    capacity=24,
    context_size=5,
    gradient_steps=2,
    meta_batch=3,
    batch_size=6,
)


def experience(marks: list[float], num_envs: int = 2, time: int = 3, *, valid: Tensor | None = None) -> TrajectoryBatch:
    """Random transitions whose rewards are ``marks[task]``, all of episodes of ``time`` steps."""
    generator = torch.Generator().manual_seed(len(marks))
    shape = (len(marks), num_envs, time)
    obs, next_obs = torch.randn(2, *shape, 2, generator=generator)
    action = torch.rand(*shape, 2, generator=generator) * 1.8 - 0.9
    never, zero = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape)
    last = never.clone()
    last[..., -1] = True
    return TrajectoryBatch(
        obs=obs,
        action=action,
        reward=torch.tensor(marks)[:, None, None].expand(shape).clone(),
        terminated=never,
        truncated=last,
        clock=torch.arange(time).expand(shape),
        success=never,
        valid=~never if valid is None else valid,
        log_prob=zero,
        dist=TanhGaussian(torch.zeros(*shape, 2), torch.zeros(*shape, 2)),
        next_obs=next_obs,
        advantage=zero,
        target=zero,
    )
