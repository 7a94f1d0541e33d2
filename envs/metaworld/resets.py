"""Where episodes begin: the state after Meta-World's reset, computed once for each (task, random vector) and kept.

A reset lets the arm settle for 250 substeps (some 10 ms); all episodes of one goal begin in the same state.
"""

import functools
import hashlib
import importlib.metadata
import inspect
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl.envs.metaworld import cache, simulation
from metarl.envs.metaworld.sawyer import SAWYER, SawyerTask
from metarl.envs.metaworld.scene import FIELDS, Names, Scene
from metarl.envs.metaworld.simulation import Simulation, compile_model

STATE = ("qpos", "qvel", "qacc_warmstart", "ctrl", "mocap_pos", "mocap_quat")
MODEL = "body_pos"  # the model field that resets write
OBSERVED = "observed"  # the 18 numbers that are observed of the first state
EPISODE = "episode/"  # prefix of what the task remembers for the episode
VECS = "vecs"  # the random vectors, in a file

Start = dict[str, NDArray[np.float64]]


class Starts(NamedTuple):
    """First states of some random vectors [vec ...]."""

    state: dict[str, Tensor]
    body_pos: Tensor
    observed: Tensor
    episode: dict[str, Tensor]

    def to(self, like: Tensor) -> "Starts":
        """In the precision and on the device of ``like``."""
        return tree_map(lambda x: x.to(like), self)


def starts(task: SawyerTask, vecs: NDArray[np.float64], *, num_threads: int = 0) -> Starts:
    """The first state of each row of ``vecs``: from memory, else from disk, else simulated."""
    table = _TABLES.setdefault(task.name, {})
    keys = [vec.tobytes() for vec in vecs]
    missing = {key: vec for key, vec in zip(keys, vecs, strict=True) if key not in table}
    if missing:
        first = next(iter(missing))
        table[first] = simulate(task, missing.pop(first))
        known = _read(task, first, table[first])
        table.update((key, start) for key, start in known.items() if key not in table)
        missing = {key: vec for key, vec in missing.items() if key not in table}
        with ThreadPoolExecutor(num_threads or os.cpu_count()) as pool:
            table.update(zip(missing, pool.map(lambda vec: simulate(task, vec), missing.values()), strict=True))
        if missing or first not in known:
            _write(task, table)
    rows = [table[key] for key in keys]
    stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    episode = {name.removeprefix(EPISODE): value for name, value in stacked.items() if name.startswith(EPISODE)}
    return Starts({name: stacked[name] for name in STATE}, stacked[MODEL], stacked[OBSERVED], episode)


def simulate(task: SawyerTask, vec: NDArray[np.float64]) -> Start:
    """Meta-World's reset: the task places its bodies, the data are reset, the arm settles, the task places again."""
    sim = Simulation(compile_model(task.model))
    task.reset(sim, vec)
    mujoco.mj_resetData(sim.model, sim.data)
    init_tcp = sim.settle(task.hand_init)
    episode = {"init_tcp": init_tcp, **task.reset(sim, vec)}
    found = {name: np.array(getattr(sim.data, name)) for name in STATE}
    fields = {name: torch.from_numpy(getattr(sim.data, name))[None] for name in FIELDS}
    scene = Scene(Names(sim.model, fields), {}, torch.zeros(1, 4, dtype=torch.float64))
    found[OBSERVED] = task.observed(scene)[0].numpy()
    found[MODEL] = sim.model.body_pos.copy()
    return found | {EPISODE + name: np.asarray(value, dtype=np.float64) for name, value in episode.items()}


_TABLES: dict[str, dict[bytes, Start]] = {}


def _path(task: SawyerTask) -> Path | None:
    """A file a task; its name tells the versions and holds a digest of the code that a state comes from."""
    folder = cache.folder()
    if folder is None:
        return None
    versions = "-".join(importlib.metadata.version(name) for name in ("mujoco", "metaworld"))
    return folder / "metaworld-starts" / versions / f"{task.name}-{_digest(type(task).__module__)}.starts"


@functools.cache
def _digest(module: str) -> str:
    names = (module, SawyerTask.__module__, Scene.__module__, simulation.__name__, __name__)
    code = "".join(inspect.getsource(sys.modules[name]) for name in names)
    return hashlib.sha256(code.encode()).hexdigest()[:12]


for _task in SAWYER.values():  # now, as imported: a file may be edited while a run goes on
    _digest(type(_task).__module__)


def _read(task: SawyerTask, key: bytes, start: Start) -> dict[bytes, Start]:
    """What is on disk, if it has the shapes of ``start``, simulated now, and its bits where it has ``key``."""
    path = _path(task)
    columns = None if path is None else cache.read(path)
    if columns is None or columns.keys() != {VECS, *start}:
        return {}
    vecs, num_rows = columns[VECS], len(columns[VECS]) if columns[VECS].ndim else 0
    shapes = {name: (num_rows, *value.shape) for name, value in start.items()} | {VECS: (num_rows, len(task.vec_low))}
    if {name: column.shape for name, column in columns.items()} != shapes:
        return {}
    del columns[VECS]
    found = {vec.tobytes(): {name: column[i] for name, column in columns.items()} for i, vec in enumerate(vecs)}
    same = all(value.tobytes() == start[name].tobytes() for name, value in found.get(key, {}).items())
    return found if same else {}


def _write(task: SawyerTask, table: dict[bytes, Start]) -> None:
    columns = {name: np.stack([start[name] for start in table.values()]) for name in next(iter(table.values()))}
    path = _path(task)
    if path is not None:
        cache.write(path, columns | {VECS: np.stack([np.frombuffer(key) for key in table])})
