"""Meta-batches of MAML that its tests share."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import vmap

from metarl.algorithms.maml import MAML, MAMLState
from metarl.envs.api import EnvSpec
from metarl.losses.optim import flatten, unflatten
from metarl.losses.policy_gradient import ratio_loss
from metarl.networks.distributions import of_each
from metarl.networks.mlp import MLP, CategoricalMLP, GaussianMLP
from metarl.types import Params, TrajectoryBatch

SPEC = EnvSpec(obs_dim=2, action_dim=2, horizon=5, terminates=False, has_success=False)
NUM_TASKS, NUM_ENVS = 3, 4
NUM_STEPS = SPEC.horizon


def double(params: Params) -> Params:
    return {name: value.double() for name, value in params.items()}


def random_batch(
    policy: MLP, actor: Params, generator: torch.Generator, *, num_envs: int = NUM_ENVS
) -> TrajectoryBatch:
    """What the tasks' policies ``actor`` [task ...] could have met, with random credit; the last world
    idles in its last two steps.
    """
    shape = (len(actor["bias_0"]), num_envs, NUM_STEPS)
    obs = torch.randn(*shape, SPEC.obs_dim, generator=generator, dtype=torch.float64)
    dist = vmap(lambda params, obs: of_each(policy(params, obs), obs))(actor, obs)
    action = dist.sample(generator)
    valid = torch.ones(shape, dtype=torch.bool)
    valid[:, -1, -2:] = False
    never = torch.zeros(shape, dtype=torch.bool)
    zeros = torch.zeros(shape, dtype=torch.float64)
    return TrajectoryBatch(
        obs=obs,
        action=action,
        reward=torch.randn(shape, generator=generator, dtype=torch.float64),
        terminated=never,
        truncated=never,
        clock=torch.arange(NUM_STEPS).expand(shape),
        success=never,
        valid=valid,
        log_prob=dist.log_prob(action),
        dist=dist,
        next_obs=obs.roll(-1, dims=2),
        advantage=torch.randn(shape, generator=generator, dtype=torch.float64) * valid,
        target=zeros,
    )


def meta_batch(learner: MAML, *, seed: int = 0, num_tasks: int = NUM_TASKS, num_envs: int = NUM_ENVS):
    """Meta-parameters in float64, and the batches of every inner step and of the adapted policies."""
    generator = torch.Generator().manual_seed(seed)
    state = learner.init(replace(SPEC, discrete=isinstance(learner.policy, CategoricalMLP)), generator)
    meta = double(state.meta)
    for name in meta:  # biases and log_std away from zero, rates apart from each other
        meta[name] = meta[name] + 0.05 * torch.rand(meta[name].shape, generator=generator, dtype=torch.float64)
    state = MAMLState(meta, {})
    actor, batches = learner.actor(state, num_tasks), []
    for step in range(learner.adapt_steps + 1):
        batches.append(random_batch(learner.policy, actor, generator, num_envs=num_envs))
        if step < learner.adapt_steps:
            actor = learner.adapt(state, actor, batches[-1])
    return meta, batches


def relative_error(x: Tensor, y: Tensor) -> float:
    return ((x - y).norm() / y.norm()).item()


LEARNERS = {
    "two tanh layers": MAML(policy=GaussianMLP((3, 3), "tanh")),
    "linear": MAML(policy=GaussianMLP(()), inner_lr=0.3),
    "learned rates": MAML(policy=GaussianMLP((3,), "tanh"), learn_inner_lr=True),
}


def hand_written_policy(params: Params, obs: Tensor) -> torch.distributions.Normal:
    """GaussianMLP((3, 3), "tanh") in other words."""
    hidden = torch.tanh(obs @ params["weight_0"] + params["bias_0"])
    hidden = torch.tanh(hidden @ params["weight_1"] + params["bias_1"])
    mean = hidden @ params["weight_2"] + params["bias_2"]
    return torch.distributions.Normal(mean, params["log_std"].exp().expand_as(mean), validate_args=False)


def hand_written_meta_loss(
    meta: Params, batches: list[TrajectoryBatch], inner_lr: float, outer: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Algorithm 3 with a Python loop over the tasks; ``outer`` is a function of likelihood ratio and advantage."""
    losses = []
    for task in range(len(batches[0].reward)):
        phi = meta
        for batch in batches[:-1]:
            valid = batch.valid[task]
            log_prob = hand_written_policy(phi, batch.obs[task]).log_prob(batch.action[task]).sum(-1)
            loss = -(log_prob * batch.advantage[task])[valid].mean()
            gradients = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            phi = {name: phi[name] - inner_lr * g for name, g in zip(phi, gradients, strict=True)}
        post = batches[-1]
        valid = post.valid[task]
        log_prob = hand_written_policy(phi, post.obs[task]).log_prob(post.action[task]).sum(-1)
        ratio = (log_prob - post.log_prob[task]).exp()
        losses.append(outer(ratio, post.advantage[task])[valid].mean())
    return torch.stack(losses).mean()


def moved(meta: Params, size: float, *, seed: int = 9) -> Params:
    """Another point nearby, where the likelihood ratios are not 1 and the KL is not 0."""
    generator = torch.Generator().manual_seed(seed)
    return {k: v + size * torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in meta.items()}


def meta_losses(learner: MAML, points: Params, batches: list[TrajectoryBatch]) -> Tensor:
    """The meta-loss at each of ``points`` [point ...]."""

    def loss(point: Params, batches: list[TrajectoryBatch]) -> Tensor:
        return ratio_loss(learner.policy, learner.adapted(point, batches[:-1]), batches[-1])

    return vmap(vmap(loss, in_dims=(None, 0)), in_dims=(0, None))(points, batches).mean(1)


def central_differences(learner: MAML, meta: Params, batches: list[TrajectoryBatch], h: float = 1e-5) -> Tensor:
    """(f(x + h e_i) - f(x - h e_i)) / 2h for every i, all points at once."""
    point = flatten(meta)
    steps = h * torch.eye(len(point), dtype=torch.float64)
    ahead, behind = (
        meta_losses(learner, vmap(lambda x: unflatten(x, meta))(points), batches)
        for points in (point + steps, point - steps)
    )
    return (ahead - behind) / (2 * h)
