"""Adapting a trial in simulation, before it is exported."""

import torch

from metarl.envs.api import TaskEnv
from metarl.trial import Trial


def adapt(trial: Trial, env: TaskEnv, *, episodes: int, inner_steps: int) -> list[float]:
    """Plays and takes the inner steps of a learner that has them, each on so many episodes; memory just plays.

    Args:
        env: one world of one task, which is set.
        inner_steps: at least 1; of a learner that remembers, 1.

    Returns:
        What each episode returned.
    """
    returns: list[float] = []
    obs = env.reset()
    for _ in range(inner_steps if episodes else 0):
        for _ in range(episodes):
            earned, ended = 0.0, False
            while not ended:
                action = torch.as_tensor(trial.act(obs[0, 0]))
                if env.spec.discrete:
                    action = torch.eye(env.spec.action_dim, device=action.device)[action]
                step = env.step(action.reshape(1, 1, -1))
                terminated, truncated = bool(step.terminated), bool(step.truncated)
                trial.observe(step.next_obs[0, 0], step.reward, terminated, truncated)
                obs, earned, ended = step.obs, earned + float(step.reward), terminated or truncated
            returns.append(earned)
        trial.adapt()
    return returns
