"""Runs a policy that ``trial.export("policy.onnx")`` wrote, without torch and without metarl.

numpy and onnxruntime are all it needs: copy this one file to the robot.

    policy = Policy("policy.onnx")
    while ...:
        action = policy.act(obs)  # in [-1, 1], or the index of a choice; policy.command(action) is in physical units
        ...
        policy.observe(obs, reward, terminated, truncated)  # a policy that remembers is fed it, others need it not

``python runner.py policy.onnx`` says what is in a file and how long a step takes on one core.
"""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]


class Policy:
    """One step after another in one world, from where the export was made: adapted, or in the middle of a trial."""

    def __init__(self, path: Path | str, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._prepare(self._session.get_modelmeta().custom_metadata_map["metarl"])

    def _prepare(self, description: str) -> None:
        self.spec: dict[str, Any] = json.loads(description)
        """What the numbers mean: observation, action, control_seconds, task, source, versions ..."""
        self.remembers = any(name.startswith("previous_") for name in self.spec["first"])
        self._discrete = self.spec["action"]["kind"] == "discrete"
        self._size = int(self.spec["observation"]["size"])
        signals = self.spec["action"]["signals"]
        self._low = np.array([signal.get("low", -1.0) for signal in signals], dtype=np.float32)
        self._high = np.array([signal.get("high", 1.0) for signal in signals], dtype=np.float32)
        self.begin()

    def begin(self) -> None:
        """Forgets what happened since the export."""
        self._inputs: dict[str, Array] = {name: unpacked(value) for name, value in self.spec["first"].items()}
        self._taken: Array | None = None
        self._waits = False

    def act(self, obs: Any, *, random: np.random.Generator | None = None) -> Array:
        """The most likely action for the observation [obs], or with ``random`` a sampled one.

        Returns:
            Continuous actions [act], clipped to [-1, 1]; the index of a discrete one.

        Raises:
            ValueError: another shape, a number that is not finite, or a policy that remembers and has not been told
                what its last action brought.
        """
        if self._waits and self.remembers:
            raise ValueError("the last action brought nothing yet: call observe() between two calls of act()")
        given = np.asarray(obs, dtype=np.float32).reshape(-1)
        if given.size != self._size or not np.isfinite(given).all():
            raise ValueError(f"obs is {given}: use {self._size} finite numbers")
        named = self._run(self._inputs | {"obs": given[None]})
        self._inputs |= {name: named[after] for name, after in self.spec["memory"].items()}
        self._waits = True
        if self._discrete:
            index = int(named["action"][0]) if random is None else _choose(named["log_probs"][0], random)
            self._taken = self._one_hot(index)
            return np.array(index)
        mean = named["mean"][0]
        self._taken = (
            mean if random is None else mean + named["std"][0] * random.standard_normal(mean.shape, np.float32)
        )
        return self._taken.clip(-1.0, 1.0)

    def observe(self, obs: Any, reward: Any, terminated: Any, truncated: Any, *, action: Any = None) -> None:
        """Tells what the last action brought, or ``action`` in its place: arguments as of ``metarl.Trial.observe``."""
        if self._taken is None:
            raise ValueError("nothing has acted yet: call act() before observe()")
        if action is not None:
            self._taken = self._one_hot(int(action)) if self._discrete else np.asarray(action, np.float32).reshape(-1)
        brought = {"action": self._taken, "reward": reward, "terminated": terminated, "truncated": truncated}
        brought["next_obs"] = obs
        for name, before in self._inputs.items():
            if name.startswith("previous_"):
                value = np.asarray(brought[name.removeprefix("previous_")])
                self._inputs[name] = value.astype(before.dtype).reshape(before.shape)
        self._waits = False

    def command(self, action: Array) -> Array:
        """A continuous action in the units of ``spec["action"]["signals"]``, such as torques [N m]."""
        return self._low + (action + 1) / 2 * (self._high - self._low)

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(None, inputs), strict=True))

    def _one_hot(self, index: int) -> Array:
        return np.eye(int(self.spec["action"]["size"]), dtype=np.float32)[index]


def unpacked(value: dict[str, Any]) -> Array:
    """An array from the metadata."""
    kind = np.dtype(value["dtype"]).newbyteorder("<")
    array = np.frombuffer(base64.b64decode(value["base64"]), kind).reshape(value["shape"])
    return array.astype(value["dtype"])


def _choose(log_probs: Array, random: np.random.Generator) -> int:
    return int(np.argmax(log_probs + random.gumbel(size=log_probs.shape)))


def latency(policy: Policy, steps: int = 2000) -> Array:
    """Seconds of each of ``steps`` steps, observing included, after some to warm up; memory begins anew."""
    policy.begin()
    random, warm = np.random.default_rng(0), 50
    observations = random.standard_normal((warm + steps, policy.spec["observation"]["size"])).astype(np.float32)
    taken = np.empty(warm + steps)
    for index, obs in enumerate(observations):
        began = time.perf_counter()
        policy.act(obs)
        policy.observe(obs, 0.0, False, False)
        taken[index] = time.perf_counter() - began
    policy.begin()
    return taken[warm:]


def main(path: str) -> None:
    policy = Policy(path)
    spec = policy.spec
    dt = "no clock" if spec["control_seconds"] is None else f"a step every {spec['control_seconds']:g} s"
    print(f"{path}: {spec['task']['name']}, {dt}, adapted to {spec['adaptation'] or 'nothing'}")
    print("observation:", ", ".join(_said(signal) for signal in spec["observation"]["signals"]))
    print("action:", ", ".join(_said(signal) for signal in spec["action"]["signals"]))
    microseconds = 1e6 * latency(policy)
    median, late = np.percentile(microseconds, [50, 99])
    print(f"a step takes {median:.0f} us (median), 99 % at most {late:.0f} us, on one core")


def _said(signal: dict[str, Any]) -> str:
    bounds = f" {signal['low']:g} to {signal['high']:g}" if "low" in signal else ""
    unit = f" {signal['unit']}" if "unit" in signal else ""
    return f"{signal['name']}{bounds}{unit}"


if __name__ == "__main__":
    main(sys.argv[1])
