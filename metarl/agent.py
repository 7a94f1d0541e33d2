"""A trained policy in one's own hands: ``agent = metarl.load(run)``, then one world at a time, or a batch of tasks.

trial = agent.trial(seed=0)  # one unknown task: a Gymnasium environment, a robot
obs, _ = env.reset()
while ...:
    action = trial.act(obs)
    obs, reward, terminated, truncated, _ = env.step(action)
    trial.observe(obs, reward, terminated, truncated)
    if terminated or truncated:
        trial.adapt()  # an inner step of a learner that has them; memory has adapted by now
        obs, _ = env.reset()
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.envs.api import LARGEST, EnvSpec, Step, TaskEnv
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.evaluate import MetaTest, measure
from metarl.rollout import nothing_before, rollout
from metarl.runs.code import run_code
from metarl.runs.folder import load_experiment
from metarl.runs.snapshot import load_chosen
from metarl.seeds import stream
from metarl.separate_tests import Stage, separate_tests
from metarl.types import Actor, MetaLearner, Previous, TrajectoryBatch

Numbers = float | int | Sequence[Any] | NDArray[Any] | np.generic | Tensor


def load(
    run: Path | str, *, checkpoint: str = "last", device: str | None = None, code: Path | str | None = None
) -> "TrainedAgent":
    """The policy of a run folder, from its newest usable checkpoint.

    Args:
        checkpoint: last, best (by validation), or the number of an iteration that the run keeps.
        device: where it acts and adapts; None: where it was trained.
        code: the Python file that defines the run's task, where it is none of this library's; it is run.

    Raises:
        ValueError: not a run folder, or one of another version, or of a device that this machine does not have.
        CheckpointError: it has no usable checkpoint.
    """
    run_code(None if code is None else Path(code))
    experiment = load_experiment(Path(run), device)
    loaded = load_chosen(experiment, Path(run), checkpoint, lambda text: warnings.warn(text, stacklevel=4))
    return TrainedAgent(experiment.learner, loaded.progress.learner_state, experiment.task, experiment.device)


@dataclass(frozen=True)
class TrainedAgent:
    """A learner and what it has learned."""

    learner: MetaLearner
    """The algorithm, with its hyperparameters."""
    state: Any
    """Its meta-parameters; ``learner.init`` makes those before training."""
    task: TaskDistribution
    """What it was trained on."""
    device: str = "cpu"
    """Where it acts and adapts."""

    def trial(self, *, seed: int = 0) -> "Trial":
        """Begins with one unknown task in one world; ``seed`` is that of the action noise."""
        return Trial(self, seed)

    def adapt(
        self, env: TaskEnv, *, scales: Sequence[float] | None = None, episodes: int = 1, seed: int = 0
    ) -> "Adapted":
        """Adapts to every task of ``env`` at once, as :func:`metarl.meta_test` does, on sampled actions.

        Args:
            env: any environment of this task distribution, its tasks set; all of its worlds are played in.
            scales: step size of each inner step, as a multiple of the learner's; None: its own steps at full size.
            episodes: that every world plays for each inner step, or that a learner that remembers is to remember.
            seed: of the action noise, with which :func:`metarl.meta_test` adapts to the same bits.

        Raises:
            BadField: episodes end at different times, so that no moment is the end of every world's last one.
        """
        learner = self.learner
        generator = stream(seed, "meta-test actions", device=str(env.device))
        actor = learner.actor(self.state, env.num_tasks)
        if not learner.remembers:
            for scale in [1.0] * learner.adapt_steps if scales is None else scales:
                batch, actor = rollout(env, learner.act, actor, episodes, generator)
                actor = learner.adapt(self.state, actor, learner.credit(self.state, batch), scale=scale)
            return Adapted(learner, Stage(actor), env.spec.action_dim, generator)
        if env.spec.terminates:
            raise BadField("env has episodes that end early, memory would go on: use trial(), or metarl.meta_test")
        batch, actor = rollout(env, learner.act, actor, episodes, generator, trials=True)
        last = (batch.action, batch.reward, batch.terminated, batch.truncated)
        before = Previous(*(x[:, :, -1].clone() for x in last))
        return Adapted(learner, Stage(actor, before, batch.valid.any(-1)), env.spec.action_dim, generator)


class Adapted:
    """What acts in a batch of worlds, after some adaptation."""

    def __init__(self, learner: MetaLearner, stage: Stage, action_dim: int, generator: torch.Generator) -> None:
        self._learner, self._stage, self._action_dim, self._generator = learner, stage, action_dim, generator
        self._action: Tensor | None = None
        self.actor: Actor = stage.actor
        """Adapted parameters [task ...], or parameters and memory."""
        self.previous: Previous | None = stage.before
        """What memory is fed next, besides the observation; None before the first step."""
        self.dist: Any = None
        """The distribution of the last action."""

    def act(self, obs: Float[Tensor, "task env obs"], *, greedy: bool = False) -> Float[Tensor, "task env act"]:
        """Samples an action of every world, or with ``greedy`` takes the most likely one; one-hot where discrete."""
        previous = nothing_before(obs, self._action_dim) if self.previous is None else self.previous
        action, self.dist, self.actor = self._learner.act(self.actor, obs, previous, self._generator)
        self._action = self.dist.mode() if greedy else action
        return self._action

    def observe(self, step: Step, action: Float[Tensor, "task env act"] | None = None) -> None:
        """Tells what came of the last action, or of another one that was taken in its place: memory is fed it."""
        taken = self._action if action is None else action
        if taken is None:
            raise ValueError("nothing has acted yet: call act() before observe()")
        self.previous = Previous(taken, step.reward, step.terminated, step.truncated)

    def test(self, env: TaskEnv, *, greedy: bool = True, seed: int = 0) -> MetaTest:
        """One episode in every world of ``env``, which has the tasks that it adapted to (and, for an agent that
        remembers, as many worlds), of which nothing is remembered: leaves [task step=1 episode=env]."""
        draws = stream(seed, "separate test actions", device=str(env.device))
        (batch,) = separate_tests(self._learner, iter([self._stage]), env, draws, greedy=greedy)
        return measure(batch, 1, env.spec.horizon)


class Trial:
    """One agent in one world of an unknown task, from its first step on; another task is another trial.

    Observations and rewards come as numbers, numpy arrays or tensors; actions leave as the observations came. A memory
    of attention grows with every step.
    """

    def __init__(self, agent: TrainedAgent, seed: int) -> None:
        self.spec: EnvSpec = agent.task.spec
        self._agent, self._learner, self._device = agent, agent.learner, torch.device(agent.device)
        generator = stream(seed, "meta-test actions", device=agent.device)
        stage = Stage(agent.learner.actor(agent.state, 1))
        self.acting = Adapted(agent.learner, stage, self.spec.action_dim, generator)
        """What acts, in one world of one task."""
        self._clock = 0
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
        if self._obs is not None and self._learner.remembers:
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
        if not self._learner.remembers and taken is not None:
            self._steps.append(
                taken._asdict()
                | {"obs": self._obs, "next_obs": next_obs, "dist": self.acting.dist, "success": never, "valid": ~never}
                | {"clock": torch.full((1, 1), self._clock, device=self._device)}
            )
        self._clock = 0 if terminated or truncated else self._clock + 1
        self._obs = None

    def adapt(self, *, scale: float = 1.0) -> None:
        """One inner step on the episodes observed since the last one; nothing to do for a learner that remembers.

        ``scale`` is of the step size, a multiple of the learner's. ValueError: there is no whole episode to learn from.
        """
        if self._learner.remembers:
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
        self._steps = []

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
