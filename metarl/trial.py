"""One agent in one world of an unknown task: a Gymnasium environment, another simulator, a robot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.adapted import Adapted, Learned
from metarl.envs.api import LARGEST, EnvSpec, Step
from metarl.envs.fields import BadField
from metarl.seeds import stream
from metarl.separate_tests import Adapting
from metarl.types import TrajectoryBatch, remembers

Numbers = float | int | Sequence[Any] | NDArray[Any] | np.generic | Tensor


class Trial:
    """One agent in one world of an unknown task, from its first step on; another task is another trial.

    Observations and rewards come as numbers, numpy arrays or tensors; actions leave as the observations came. A memory
    of attention grows with every step.
    """

    def __init__(self, agent: Learned, seed: int) -> None:
        self.spec: EnvSpec = agent.task.spec
        self._agent, self._learner, self._device = agent, agent.learner, torch.device(agent.device)
        generator = stream(seed, "meta-test actions", device=agent.device)
        stage = Adapting(agent.learner.actor(agent.state, 1))
        self.acting = Adapted(agent, stage, generator)
        """What acts, in one world of one task."""
        self._clock, self._remembers = 0, remembers(agent.learner)
        self._seen = {"inner_steps": 0, "episodes": 0, "steps": 0}
        self._obs: Tensor | None = None  # of an action that nothing is known of yet
        self._steps: list[dict[str, Any]] = []  # since the last inner step

    def act(self, obs: Numbers, *, greedy: bool = False) -> NDArray[Any] | Tensor:
        """Samples an action for the observation [obs], in the order and the units of the task.

        ``greedy`` takes the most likely one, or the mean: after adaptation, for an inner step learns from noise.

        Returns:
            Continuous actions [act], clipped to [-1, 1] as the environment does; the index of a discrete one.

        Raises:
            ValueError: another shape, a number that is not finite, or an agent that remembers and has not been told
                what its last action brought.
        """
        if self._obs is not None and self._remembers:
            raise ValueError("the last action brought nothing yet: call observe() between two calls of act()")
        self._obs = self._vector("obs", obs, self.spec.obs_dim)
        action = self.acting.act(self._obs, greedy=greedy)[0, 0]
        chosen = action.argmax() if self.spec.discrete else action.clamp(-1.0, 1.0)
        return chosen if isinstance(obs, Tensor) else chosen.cpu().numpy()

    def observe(
        self,
        obs: Numbers,
        reward: Numbers,
        terminated: bool | np.bool_,
        truncated: bool | np.bool_,
        *,
        action: Numbers | None = None,
    ) -> None:
        """Tells what the last action brought.

        Args:
            obs: where it led, before any reset [obs].
            terminated: it ended the task's MDP; truncated: the time limit did, or whoever stops an episode early.
            action: what was done where that is something else, such as a limiter's; the index of a discrete one.
                Memory is fed it; an inner step takes it for the policy's own.

        Raises:
            ValueError: another shape, a number that is not finite, or no action before.
        """
        if self._obs is None:
            raise ValueError("nothing has acted yet: call act() before observe()")
        next_obs, earned = self._vector("obs", obs, self.spec.obs_dim), self._vector("reward", reward, 1)[..., 0]
        ended = [torch.full((1, 1), bool(flag), device=self._device) for flag in (terminated, truncated)]
        never = torch.zeros_like(ended[0])
        step = Step(next_obs, next_obs, earned, ended[0], ended[1], never, never)
        self.acting.observe(step, None if action is None else self._taken(action))
        taken = self.acting.previous
        if not self._remembers and taken is not None:
            self._steps.append(
                taken._asdict()
                | {"obs": self._obs, "dist": self.acting.dist, "success": never, "valid": ~never}
                | {"clock": torch.full((1, 1), self._clock, device=self._device)}
            )
        self._seen["steps"] += 1
        self._seen["episodes"] += bool(terminated or truncated)
        self._clock = 0 if terminated or truncated else self._clock + 1
        self._obs = None

    def adapt(self, *, scale: float = 1.0) -> None:
        """One inner step on the episodes observed since the last one; nothing to do for a learner that remembers.

        ``scale`` is of the step size, a multiple of the learner's. ValueError: there is no whole episode to learn from.
        """
        if self._remembers:
            return
        if not self._steps or self._clock:
            raise ValueError(
                f"adapt after {len(self._steps)} steps, {self._clock} of them of an unfinished episode: an inner step "
                "takes whole ones, give observe() truncated=True where you stop one"
            )
        fields = tree_map(lambda *leaves: torch.stack(leaves, dim=2), *self._steps)
        zeros, log_prob = torch.zeros_like(fields["reward"]), fields["dist"].log_prob(fields["action"])
        batch = TrajectoryBatch(**fields, log_prob=log_prob, advantage=zeros, target=zeros)
        state = self._agent.state
        credited = self._learner.credit(state, batch)
        self.acting.actor = self._learner.adapt(state, self.acting.actor, credited, scale=scale)
        self._seen["inner_steps"] += 1
        self._steps = []

    def export(self, path: Path | str) -> Path:
        """Writes the policy as it is now, adapted parameters or memory included, to act without torch and this library.

        The file holds one step: the most likely action, and the distribution to sample from; of a policy that
        remembers, memory and what the last action brought are inputs, memory is an output, and the trial so far is
        where it begins. Its metadata say what the numbers mean; :mod:`metarl.deploy.runner` reads an ONNX file.

        Args:
            path: ends in ``.onnx`` (ONNX), ``.pt2`` (torch.export) or ``.safetensors`` (the parameters alone).

        Returns:
            The path.

        Raises:
            BadField: another ending.
            ValueError: an agent that remembers and has not been told what its last action brought; or an exported
                policy that does not act as this one does.
            ImportError: what the extra ``deploy`` installs is missing.
        """
        if self._obs is not None and self._remembers:
            raise ValueError("the last action brought nothing yet: call observe() before export()")
        return self.acting.export(path, adaptation=self._seen)

    def _vector(self, name: str, value: Any, length: int) -> Float[Tensor, "1 1 length"]:
        """Numbers as the policy takes them; BadField where it cannot."""
        given = (value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value, dtype=np.float32))).float()
        if given.numel() != length:
            raise BadField(f"{name} has shape {tuple(given.shape)}: {self._agent.task.name} needs {length} numbers")
        if not (given.abs() <= LARGEST).all():
            raise BadField(f"{name} is {given.tolist()}: use finite numbers")
        return given.detach().to(self._device, torch.get_default_dtype()).reshape(1, 1, length)

    def _taken(self, action: Numbers) -> Float[Tensor, "1 1 act"]:
        if not self.spec.discrete:
            return self._vector("action", action, self.spec.action_dim)
        index = int(torch.as_tensor(action))
        if not 0 <= index < self.spec.action_dim:
            raise BadField(f"action is {index}: use 0 to {self.spec.action_dim - 1}")
        return torch.eye(self.spec.action_dim, device=self._device)[index].reshape(1, 1, -1)
