"""Several episodes of one task as one episode, which tells what happened: any recurrent learner becomes RL²."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.fields import BadField

LARGEST = float(np.finfo(np.float32).max)


class TrialWrapper(gymnasium.Wrapper[NDArray[np.float32], Any, NDArray[np.float32], Any]):
    """A trial of RL² (Duan et al. 2016): ``episodes`` episodes of one task, drawn anew at each reset.

    The observation is followed by the last action (one-hot where it is a choice), the last reward, and whether an
    episode ended with it: zeros at the first step. The last episode's end terminates the trial; ``info`` counts the
    ``episode_of_trial`` from 0. The environment is one of :class:`metarl.envs.GymnasiumEnv`, or another whose ``info``
    names the ``task`` and whose reset takes it as an option.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], episodes: int) -> None:
        super().__init__(env)
        if episodes < 1:
            raise BadField(f"episodes is {episodes}: use at least 1")
        self._episodes = episodes
        seen, acted = (spaces.flatdim(space) for space in (env.observation_space, env.action_space))
        self.observation_space = spaces.Box(-LARGEST, LARGEST, (seen + acted + 2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        self._task, self._episode = info["task"], 0
        nothing = np.zeros(spaces.flatdim(self.env.action_space), np.float32)
        return self._told(obs, nothing, 0.0, False), info | {"episode_of_trial": 0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = terminated or truncated
        self._episode += ended
        if ended and self._episode < self._episodes:
            obs, _ = self.env.reset(options={"task": self._task})
        done = np.asarray(spaces.flatten(self.env.action_space, action), np.float32)
        told = self._told(obs, done, float(reward), ended)
        return told, float(reward), self._episode == self._episodes, False, info | {"episode_of_trial": self._episode}

    def _told(self, obs: Any, action: NDArray[np.float32], reward: float, ended: bool) -> NDArray[np.float32]:
        flat = np.asarray(spaces.flatten(self.env.observation_space, obs), np.float32)
        return np.concatenate([flat, action, [reward, ended]], dtype=np.float32)
