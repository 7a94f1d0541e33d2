"""What an exported file says of itself: names, units and bounds of all numbers, and where the policy comes from."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from metarl.adapted import Learned
from metarl.deploy.step import NEXT, PREVIOUS, OneStep
from metarl.envs.api import Signal
from metarl.runs.config import to_json
from metarl.runs.versions import versions

FORMAT = 1
MEANING = {
    "obs": "the observation, in the order and the units of observation.signals",
    f"{PREVIOUS}action": "the last action as mean or sample, not clipped; one-hot where discrete; first 0",
    f"{PREVIOUS}reward": "what the last action earned, in the task's own units",
    f"{PREVIOUS}terminated": "the last step ended the task's episode",
    f"{PREVIOUS}truncated": "the last step was the last one before a time limit",
    f"{PREVIOUS}next_obs": "the observation that the last action led to, before any reset",
}


def interface(agent: Learned, step: OneStep, adaptation: Mapping[str, Any]) -> str:
    """The description of an exported policy, as JSON."""
    spec, signals = agent.task.spec, agent.task.signals()
    kept = {name: value for name, value in versions().items() if name in ("metarl", "torch", "numpy", "python")}
    action = {"kind": "discrete"} if spec.discrete else {"kind": "continuous", "low": -1.0, "high": 1.0}
    content = {
        "format": FORMAT,
        "task": {"name": agent.task.name, "definition": to_json(agent.task)},
        "learner": to_json(agent.learner),
        "source": dict(agent.source),
        "adaptation": dict(adaptation),
        "versions": kept,
        "control_seconds": signals.seconds,
        "horizon": spec.horizon,
        "observation": {"size": spec.obs_dim, "signals": [described(signal) for signal in signals.observation]},
        "action": {
            **action,
            "size": spec.action_dim,
            "squashing": "none"
            if spec.discrete
            else "the mean is clipped to [-1, 1], as the environment clips samples",
            "signals": [described(signal) for signal in signals.action],
        },
        "inputs": [port(name, value, step, MEANING.get(name, "memory")) for name, value in step.example.items()],
        "outputs": [port(name, value, step, "") for name, value in step.outputs.items()],
        "memory": {name: NEXT + name for name in step.memory_names},
        "first": {name: packed(value) for name, value in step.first.items() if name != "obs"},
    }
    return json.dumps(content, default=str)


def described(signal: Signal) -> dict[str, Any]:
    """Without what is not known."""
    return {name: value for name, value in signal._asdict().items() if value not in (None, "")}


def port(name: str, value: Tensor, step: OneStep, meaning: str) -> dict[str, Any]:
    growing = step.growing.get(name.removeprefix(NEXT), [])
    shape = [None if axis in growing else size for axis, size in enumerate(value.shape)]
    return {"name": name, "shape": shape, "dtype": str(value.dtype).removeprefix("torch.")} | (
        {"meaning": meaning} if meaning else {}
    )


def packed(value: Tensor) -> dict[str, Any]:
    """A tensor in JSON: its bytes, little-endian, in base64."""
    array = value.detach().cpu().contiguous().numpy()
    array = array.astype(array.dtype.newbyteorder("<"))
    content = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "base64": content}
