"""Writes a policy as it is now to a file: ONNX, torch.export, or its parameters alone."""

import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metarl.adapted import Learned
from metarl.algorithms.memory import MemoryLearner
from metarl.algorithms.pearl import PEARL
from metarl.deploy.interface import interface
from metarl.deploy.step import NEXT, PREVIOUS, OneStep, trace
from metarl.envs.fields import BadField
from metarl.rollout import nothing_before
from metarl.runs.files import write_whole
from metarl.seeds import stream
from metarl.types import Actor, Previous

KEY = "metarl"  # of the metadata
MOST_APART = 1e-5  # relative to the larger of 1 and the number; rounding alone comes to a tenth of it
CHECKED_STEPS = 5
Runner = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def export(agent: Learned, actor: Actor, previous: Previous | None, path: Path, adaptation: Mapping[str, Any]) -> Path:
    """Writes what acts in one world of one task, after comparing it with what it was made from.

    Args:
        previous: what a policy that remembers is fed next; None: a trial begins.
        adaptation: what it has adapted to, for a reader.

    Raises:
        BadField: the path ends in none of ``.onnx``, ``.pt2`` and ``.safetensors``, or in a folder that is not there.
        ValueError: the exported policy acts otherwise.
        ImportError: what the extra ``deploy`` installs is missing.
    """
    if path.suffix not in WRITERS:
        raise BadField(f"path is {path.name!r}: use a name that ends in {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise BadField(f"path is {path}: there is no folder {path.parent}")
    step = step_of(agent, actor, previous)
    with quiet():
        content, runner = WRITERS[path.suffix](step, interface(agent, step, adaptation))
    require_equal(step, runner)
    write_whole(path, content)
    return path


def step_of(agent: Learned, actor: Actor, previous: Previous | None) -> OneStep:
    """What is exported, on the CPU."""
    actor, previous = tree_map_only(Tensor, lambda x: x.detach().cpu(), (actor, previous))
    if previous is None:
        previous = nothing_before(torch.zeros(1, 1, agent.task.spec.obs_dim), agent.task.spec.action_dim)
    if isinstance(agent.learner, MemoryLearner | PEARL):
        actor, previous = agent.learner.beginning(actor, previous)
    return OneStep(agent.learner, agent.task.spec, actor, previous)


def write_onnx(step: OneStep, description: str) -> tuple[bytes, Runner]:
    require("onnx")
    require("onnxscript")
    runtime = require("onnxruntime")
    inputs, outputs = list(step.example), list(step.outputs)
    program = torch.onnx.export(trace(step), dynamo=True, verbose=False, input_names=inputs, output_names=outputs)
    assert program is not None
    program.model.metadata_props[KEY] = description
    content = program.model_proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(given: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(None, {name: value.numpy() for name, value in given.items()})
        return {name: torch.from_numpy(value) for name, value in zip(outputs, found, strict=True)}

    return content, run


def write_torch(step: OneStep, description: str) -> tuple[bytes, Runner]:
    file = io.BytesIO()
    torch.export.save(trace(step), file, extra_files={f"{KEY}.json": description})
    module = torch.export.load(io.BytesIO(file.getvalue())).module()
    return file.getvalue(), lambda given: module(**given)


def write_parameters(step: OneStep, description: str) -> tuple[bytes, Runner]:
    """Parameters by their names in the learner, [task=1 ...] where they are adapted ones."""
    tensors = require("safetensors.torch")
    parameters = {name: value.contiguous().clone() for name, value in step.parameters_by_name.items()}
    content = tensors.save(parameters, metadata={KEY: description})
    found = tensors.load(content)
    if any(not torch.equal(found[name], value) for name, value in parameters.items()):
        raise ValueError("the parameters were not written as they are: report it")
    return content, lambda given: step(**given)


WRITERS: dict[str, Callable[[OneStep, str], tuple[bytes, Runner]]] = {
    ".onnx": write_onnx,
    ".pt2": write_torch,
    ".safetensors": write_parameters,
}


def require_equal(step: OneStep, runner: Runner) -> None:
    """Raises ValueError where an exported step and the one it was made from say different things."""
    generator = stream(0, "numbers to compare exported policies on")
    inputs = dict(step.first)
    for _ in range(CHECKED_STEPS):
        inputs["obs"] = torch.randn(inputs["obs"].shape, generator=generator)
        with torch.no_grad():
            expected, found = step(**inputs), runner(inputs)
        for name, value in expected.items():
            apart = (found[name] - value).abs() / value.abs().clamp(min=1.0)
            if not (apart <= MOST_APART).all():
                raise ValueError(
                    f"{name} of the exported policy is {apart.max():.2g} off: its network cannot be exported"
                )
        inputs |= {name: expected[NEXT + name] for name in step.memory_names}
        for name in (name for name in inputs if name.startswith(PREVIOUS)):
            shape, kind = inputs[name].shape, inputs[name].dtype
            drawn = torch.randn(shape, generator=generator)
            inputs[name] = drawn > 1 if kind == torch.bool else drawn


@contextmanager
def quiet() -> Iterator[None]:
    """Torch's exporter speaks of packages that are not there, and of its own future."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def require(name: str) -> ModuleType:
    """A module of the extra ``deploy``."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f"{package} is missing: pip install 'metarl-toolkit[deploy]'") from error
