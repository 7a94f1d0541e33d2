"""Perturbations that no training saw, each with a strength of which 0 is the task as it is.

An entry of :data:`PERTURBATIONS` is one kind: what its strength means, and how it changes an environment. The learner
is not told: it remembers and learns from the actions that it chose, and from what its sensors say.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.api import EnvSpec, ScalableWorlds, Step, TaskEnv
from metarl.envs.fields import BadField


class Perturbed:
    """:class:`metarl.envs.api.TaskEnv` around another one; subclasses change what passes through it."""

    def __init__(self, env: TaskEnv, strength: float, generator: torch.Generator) -> None:
        self.env, self.strength, self.generator = env, strength, generator

    def command(self, action: Float[Tensor, "task env act"]) -> Float[Tensor, "task env act"]:
        """What is done in place of an action."""
        return action

    def sensed(self, obs: Float[Tensor, "task env obs"]) -> Float[Tensor, "task env obs"]:
        """What is seen in place of an observation."""
        return obs

    def begun(self, worlds: Bool[Tensor, "task env"]) -> None:
        """Told of worlds in which an episode begins."""

    def reset(self) -> Float[Tensor, "task env obs"]:
        obs = self.env.reset()
        self.begun(torch.ones_like(self.env.clock, dtype=torch.bool))
        return self.sensed(obs)

    def step(self, action: Float[Tensor, "task env act"]) -> Step:
        step = self.env.step(self.command(action))
        ended = step.terminated | step.truncated
        self.begun(ended)
        next_obs = self.sensed(step.next_obs)
        obs = self.sensed(step.obs).where(ended.unsqueeze(-1), next_obs)  # one look is one observation
        return step._replace(obs=obs, next_obs=next_obs)

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    @property
    def num_tasks(self) -> int:
        return self.env.num_tasks

    @property
    def num_envs(self) -> int:
        return self.env.num_envs

    @property
    def device(self) -> torch.device:
        return self.env.device

    @property
    def clock(self) -> Int[Tensor, "task env"]:
        return self.env.clock

    @property
    def num_diverged(self) -> Int[Tensor, ""]:
        return self.env.num_diverged

    @property
    def faults(self) -> Int[Tensor, "task fault"]:
        return self.env.faults

    @property
    def num_overflowed(self) -> int:
        return self.env.num_overflowed

    def set_tasks(self, task: Float[Tensor, "task ..."]) -> None:
        self.env.set_tasks(task)

    def rest(self, worlds: Bool[Tensor, "task env"]) -> None:
        self.env.rest(worlds)

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError("a perturbed environment is for tests, which begin anew: it is not saved")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError("a perturbed environment is for tests, which begin anew: it is not restored")


class ActionNoise(Perturbed):
    def command(self, action: Float[Tensor, "task env act"]) -> Float[Tensor, "task env act"]:
        if not self.spec.discrete:
            noise = torch.randn(action.shape, generator=self.generator, device=action.device)
            return action.clamp(-1.0, 1.0) + self.strength * noise
        slipped = torch.rand(action.shape[:2], generator=self.generator, device=action.device) < self.strength
        other = torch.randint(action.shape[2], action.shape[:2], generator=self.generator, device=action.device)
        chance = torch.nn.functional.one_hot(other, action.shape[2]).to(action)
        return chance.where(slipped.unsqueeze(-1), action)


class ActionDelay(Perturbed):
    """Until the first action of an episode arrives, it is 0, or the first choice."""

    def __init__(self, env: TaskEnv, strength: float, generator: torch.Generator) -> None:
        super().__init__(env, strength, generator)
        if strength != int(strength) or not 0 < strength < env.spec.horizon:
            raise BadField(
                f"strengths has {strength:g}: a delay is a whole number of steps, below the {env.spec.horizon} of an "
                "episode"
            )
        self._rest = torch.zeros(env.num_tasks, env.num_envs, env.spec.action_dim, device=env.device)
        self._rest[..., 0] = float(env.spec.discrete)
        self._under_way = [self._rest] * int(strength)

    def begun(self, worlds: Bool[Tensor, "task env"]) -> None:
        self._under_way = [self._rest.where(worlds.unsqueeze(-1), action) for action in self._under_way]

    def command(self, action: Float[Tensor, "task env act"]) -> Float[Tensor, "task env act"]:
        self._under_way.append(action)
        return self._under_way.pop(0)


class SensorNoise(Perturbed):
    def sensed(self, obs: Float[Tensor, "task env obs"]) -> Float[Tensor, "task env obs"]:
        return obs + self.strength * torch.randn(obs.shape, generator=self.generator, device=obs.device)


def heavier(env: TaskEnv, strength: float, generator: torch.Generator) -> TaskEnv:
    return _scaled(env, "mass", ("body_mass", "body_inertia"), strength)


def rougher(env: TaskEnv, strength: float, generator: torch.Generator) -> TaskEnv:
    return _scaled(env, "friction", ("geom_friction", "pair_friction"), strength)


def _scaled(env: TaskEnv, name: str, fields: tuple[str, ...], strength: float) -> TaskEnv:
    worlds = getattr(env, "worlds", None)
    if not isinstance(worlds, ScalableWorlds):
        raise BadField(f"perturb is {name!r}: the task has no MuJoCo physics to change, use noise, delay or sensor")
    worlds.scale_model(dict.fromkeys(fields, 1 + strength))
    return env


@dataclass(frozen=True)
class Perturbation:
    strengths: tuple[float, ...]
    """Those that are tested by default."""
    meaning: str
    """Of the strength."""
    apply: Callable[[TaskEnv, float, torch.Generator], Any]
    """Changes an environment whose tasks are not set yet, and returns a :class:`metarl.envs.api.TaskEnv`; the generator
    draws noise."""
    lowest: float = field(default=0.0)
    """Strengths are not below."""


PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation(
        (0.0, 0.1, 0.2, 0.4, 0.8),
        "standard deviation added to each number of an action, which goes from -1 to 1; of choices, the probability "
        "of one at random",
        ActionNoise,
    ),
    "delay": Perturbation((0.0, 1.0, 2.0, 4.0), "steps until an action is done", ActionDelay),
    "mass": Perturbation(
        (-0.5, -0.25, 0.0, 0.25, 0.5, 1.0), "share added to every mass and inertia: 1 doubles them", heavier, -0.99
    ),
    "friction": Perturbation(
        (-0.75, -0.5, 0.0, 0.5, 1.0), "share added to every friction coefficient: 1 doubles it", rougher, -0.99
    ),
    "sensor": Perturbation(
        (0.0, 0.05, 0.1, 0.2, 0.4),
        "standard deviation added to each number of an observation, in its unit",
        SensorNoise,
    ),
}


def perturbed(env: TaskEnv, name: str, strength: float, generator: torch.Generator) -> TaskEnv:
    """The environment under a perturbation; at strength 0 the very one that is given."""
    kind = PERTURBATIONS[name]
    if not kind.lowest <= strength <= 1e6:
        raise BadField(f"strengths has {strength:g}: for {name} use {kind.lowest:g} or more")
    changed: TaskEnv = kind.apply(env, strength, generator) if strength else env
    return changed


def named(names: str) -> list[str]:
    """The perturbations of a list with commas.

    Raises:
        BadField: there is none of a name.
    """
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in PERTURBATIONS:
            raise BadField(f"perturb is {name!r}: use some of {','.join(PERTURBATIONS)}")
    return list(dict.fromkeys(found))
