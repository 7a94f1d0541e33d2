"""Killed with -9 at random phases, again and again, and resumed: every value and every row are an undisturbed run's.

A life is a fork of a process of its own, which has imported everything and trained once; without CUDA and with one
thread, so that forks can train. It writes a byte to a pipe at each phase of its work (every file and every rename,
every batch and every update), and is killed after a random number of them.
"""

import csv
import io
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.utils._pytree import tree_flatten

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.pearl import PEARL
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.algorithms.varibad import VariBAD
from metarl.envs.small.navigation import Navigation
from metarl.losses.elbo import ELBO
from metarl.networks.belief import BeliefModel
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs import checkpoint, snapshot
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.session import execute

LAST = 5
NEVER = 10**9  # phases
LONGEST = 60  # seconds of a life
BASE = Experiment(
    task=Navigation(horizon=4),
    learner=MAML(),
    num_tasks=2,
    num_envs=2,
    episodes=2,
    iterations=LAST,
    checkpoint_interval=1,
    eval_interval=2,
    eval_tasks=2,
    num_threads=1,
)
OFF_POLICY = PEARL(
    hidden_sizes=(8,),
    encoder_sizes=(8,),
    num_slots=4,  # fewer than tasks of the run
    capacity=40,
    context_size=4,
    gradient_steps=2,
    meta_batch=2,
    batch_size=4,
)
LEARNERS = {
    "maml": BASE,
    "promp": replace(BASE, learner=ProMP(), validation_interval=1, validation_tasks=2, checkpoint_interval=2),
    "reptile": replace(BASE, learner=Reptile()),
    "es_maml": replace(BASE, learner=ESMAML(pairs=1)),
    "pearl": replace(BASE, learner=OFF_POLICY),
    "rl2": replace(BASE, learner=RL2(policy=RecurrentPolicy(memory_size=4), epochs=1), num_envs=1),
    "varibad": replace(
        BASE,
        learner=VariBAD(belief=BeliefModel(belief_units=4), elbo=ELBO(belief_trials=2, replay_episodes=5), epochs=1),
        num_envs=1,
    ),
}


def live(experiment: Experiment, run: Path, pipe: int, harm: Callable[[], None]) -> None:
    """One life, which tells of its phases."""

    def spied(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def with_a_byte(*arguments: Any, **options: Any) -> Any:
            os.write(pipe, b".")
            found = original(*arguments, **options)
            os.write(pipe, b".")
            return found

        setattr(owner, name, with_a_byte)

    for name in ("open", "replace", "fsync", "unlink"):
        spied(os, name)
    spied(sys.modules["metarl.train"], "rollout")
    spied(type(experiment.learner), "update")
    harm()
    execute(experiment, run, console=Console(file=io.StringIO()))


def killed(experiment: Experiment, run: Path, phases: int, chance: random.Random, harm: Callable[[], None]) -> bool:
    """Whether the kill came before the end of the life."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(LONGEST)
            os.close(reading)
            live(experiment, run, writing, harm)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    seen = 0
    while seen < phases and (found := os.read(reading, 1)):
        seen += len(found)
    if phases < NEVER:
        time.sleep(chance.choice([0.0, 0.0, 0.0005, 0.002]))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"a life ended by itself, with {code}"
    return code != 0


def bits(x: Any) -> Any:
    return (x.dtype, tuple(x.shape), x.numpy().tobytes()) if isinstance(x, torch.Tensor) else (type(x), x)


def outcome(run: Path) -> tuple[Any, ...]:
    """Every value of the last checkpoint and every row but the times."""
    contents = [checkpoint.load(run / checkpoint.DIRECTORY / f"iteration_{LAST:08d}.ckpt")]
    if (best := contents[0].get("selection")) is not None:
        contents.append(checkpoint.load_iteration(run / checkpoint.DIRECTORY, best["iteration"]))
    leaves, structure = tree_flatten(contents)
    with open(run / "progress.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
    return structure, [bits(leaf) for leaf in leaves], rows


def unharmed() -> None:
    pass


def forgetful() -> None:
    """Checkpoints without the state of the generator of actions."""
    session, fresh = sys.modules["metarl.runs.session"], torch.Generator().manual_seed(0).get_state()
    session.capture = lambda *arguments: snapshot.capture(*arguments) | {"actions": fresh}  # type: ignore[attr-defined]


def differing(name: str, kills: int, folder: Path, harm: Callable[[], None] = unharmed) -> tuple[int, int]:
    """Kills that hit, and runs that end otherwise than the undisturbed one."""
    experiment, chance, hits, different, lives = LEARNERS[name], random.Random(name), 0, 0, 0
    warm = replace(experiment, iterations=2, seed=1)
    execute(warm, create_run(warm, folder, "warm"), console=Console(file=io.StringIO()))
    whole = create_run(experiment, folder, "whole")
    assert not killed(experiment, whole, NEVER, chance, unharmed)
    while hits < kills:
        run = create_run(experiment, folder, f"run{lives}")
        lives += 1
        for _ in range(chance.randint(1, 4)):
            hits += killed(experiment, run, chance.randint(1, 120), chance, harm)
        assert not killed(experiment, run, NEVER, chance, unharmed)
        different += outcome(run) != outcome(whole)
    return hits, different


def without_cuda() -> None:
    """Autograd's threads for GPUs do not survive a fork."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def nursery() -> Iterator[ProcessPoolExecutor]:
    """The process that is forked: this one may have trained with other threads."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), without_cuda) as pool:
        yield pool


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "pearl" else []) for name in LEARNERS]
)
def test_killed_runs_end_with_the_bits_of_an_undisturbed_one(
    name: str, tmp_path: Path, nursery: ProcessPoolExecutor
) -> None:
    hits, different = nursery.submit(differing, name, 2, tmp_path).result()
    assert hits >= 2
    assert different == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LEARNERS)
def test_so_do_many(name: str, tmp_path: Path, nursery: ProcessPoolExecutor) -> None:
    """70 kills a learner."""
    hits, different = nursery.submit(differing, name, 70, tmp_path).result()
    assert hits >= 70
    assert different == 0


@pytest.mark.slow
def test_a_forgotten_generator_is_noticed(tmp_path: Path, nursery: ProcessPoolExecutor) -> None:
    """Negative control."""
    assert nursery.submit(differing, "maml", 10, tmp_path, forgetful).result()[1] > 0
