"""One step of any policy in one world, as a function of tensors by name: traced through its own ``act``.

No class of network is known here. What differs between the actor before and after a step is memory, an input and an
output; what stays the same object is a parameter, a constant. Axes that grow with a step are dynamic.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten_with_path, tree_leaves, tree_map, tree_unflatten

from metarl.envs.api import EnvSpec
from metarl.networks.distributions import TanhGaussian
from metarl.seeds import stream
from metarl.types import Actor, Agent, Previous

PREVIOUS = "previous_"
NEXT = "next_"


class WithoutDraws(TorchFunctionMode):
    """Zeros in place of normal and uniform draws: the action that is sampled is not exported, its distribution is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.randn, torch.rand):
            kwargs.pop("generator", None)
            return torch.zeros(*args, **kwargs)
        return func(*args, **kwargs)


class Noting(TorchFunctionMode):
    """Notes which tensors are read."""

    def __init__(self) -> None:
        super().__init__()
        self._read: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._read |= {id(leaf) for leaf in tree_leaves((args, kwargs))}
        return func(*args, **(kwargs or {}))

    def fields(self, read: Previous) -> list[str]:
        """The fields that were."""
        return [name for name, value in read._asdict().items() if id(value) in self._read]


class OneStep(torch.nn.Module):
    """``step(obs=..., previous_action=..., memory=...)`` -> action, its distribution, and ``next_memory``.

    Every tensor has a first axis of 1, the world. Inputs besides ``obs`` are there for a policy that remembers: what
    the last action brought, the fields of :class:`metarl.types.Previous` that it reads, and its memory.
    """

    def __init__(self, agent: Agent, spec: EnvSpec, actor: Actor, previous: Previous) -> None:
        """``actor`` acts in one world of one task; ``previous`` is what it is fed next."""
        super().__init__()
        self._agent, self._spec, self._previous = agent, spec, previous
        self._draws = stream(0, "no draws")
        paths, self._tree = tree_flatten_with_path(actor)
        names, leaves = [name_of(path) for path, _ in paths], [leaf for _, leaf in paths]
        obs = torch.zeros(1, 1, spec.obs_dim)
        with WithoutDraws(), Noting() as noting:
            _, _, after = agent.act(actor, obs, previous, self._draws)
        self._fed = noting.fields(previous)
        self._remembered = [i for i, (a, b) in enumerate(zip(leaves, tree_leaves(after), strict=True)) if a is not b]
        self._names = [name.replace(".", "_") for name in names]
        self.memory_names = [self._names[i] for i in self._remembered]
        self.parameters_by_name: dict[str, Tensor] = {}
        """What stays the same from step to step."""
        for i in (i for i in range(len(leaves)) if i not in self._remembered):
            self.register_buffer(self._names[i], leaves[i])
            self.parameters_by_name[names[i]] = leaves[i]
        grown = [tree_leaves(after)[i] for i in self._remembered]
        self.growing = {
            name: [axis for axis in range(b.dim()) if leaves[i].shape[axis] != b.shape[axis]]
            for name, i, b in zip(self.memory_names, self._remembered, grown, strict=True)
        }
        inputs = {"obs": obs[:, 0]} | {PREVIOUS + name: getattr(previous, name)[:, 0].clone() for name in self._fed}
        self.first = inputs | {name: leaves[i] for name, i in zip(self.memory_names, self._remembered, strict=True)}
        """Inputs of the step that comes next; those of ``obs`` are zeros."""
        self.example: dict[str, Tensor] = inputs | dict(zip(self.memory_names, grown, strict=True))
        """Inputs of a step after it: an axis of 1 would be exported as always 1. ``outputs``: what it gives."""
        keyword = inspect.Parameter.KEYWORD_ONLY
        signature = inspect.Signature([inspect.Parameter(name, keyword) for name in self.example])
        self.forward = _with_signature(self._step, signature)  # by which torch.export names the inputs
        with torch.no_grad():
            self.outputs: dict[str, Tensor] = self._step(**self.example)

    def _step(self, **inputs: Tensor) -> dict[str, Tensor]:
        memory = dict(zip(self._remembered, (inputs[name] for name in self.memory_names), strict=True))
        leaves = [memory[i] if i in memory else self.get_buffer(name) for i, name in enumerate(self._names)]
        previous = self._previous._replace(**{name: inputs[PREVIOUS + name].unsqueeze(1) for name in self._fed})
        actor, obs = tree_unflatten(leaves, self._tree), inputs["obs"].unsqueeze(1)
        with WithoutDraws():
            _, dist, after = self._agent.act(actor, obs, previous, self._draws)
        found = actions(tree_map(lambda x: x.squeeze(1), dist), discrete=self._spec.discrete)
        then = tree_leaves(after)
        return found | {NEXT + name: then[i] for name, i in zip(self.memory_names, self._remembered, strict=True)}


def actions(dist: Any, *, discrete: bool) -> dict[str, Tensor]:
    """The most likely action as environments take it, and what to sample another one from."""
    mode = dist.mode()
    if discrete:
        known = {"log_probs": dist.log_probs} if hasattr(dist, "log_probs") else {}
        return {"action": mode.argmax(-1)} | known
    if isinstance(dist, TanhGaussian):  # its deviation is that of what goes through the tanh
        return {"action": mode, "mean": mode}
    known = {"std": dist.log_std.exp().expand_as(mode).clone()} if hasattr(dist, "log_std") else {}
    return {"action": mode.clamp(-1.0, 1.0), "mean": mode} | known


def trace(step: OneStep) -> torch.export.ExportedProgram:
    """The step as a graph of tensor operations.

    Raises:
        ValueError: it is none, such as a policy that looks at numbers in Python.
    """
    shapes: dict[str, Any] = dict.fromkeys(step.example)
    for name, axes in step.growing.items():
        shapes[name] = dict.fromkeys(axes, torch.export.Dim.AUTO)
    with torch.no_grad():
        try:
            return torch.export.export(step, (), step.example, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # of many kinds
            said = str(error).partition("\n")[0]
            raise ValueError(f"the policy cannot be traced, its steps depend on numbers: {said}") from error


def name_of(path: Sequence[Any]) -> str:
    """A leaf of an actor by its place, such as ``params.policy.weight`` or ``memory.0``."""
    keys = (next(str(getattr(key, kind)) for kind in ("name", "key", "idx") if hasattr(key, kind)) for key in path)
    return ".".join(keys)


def _with_signature(function: Any, signature: inspect.Signature) -> Any:
    def forward(**inputs: Tensor) -> Any:
        return function(**inputs)

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward
