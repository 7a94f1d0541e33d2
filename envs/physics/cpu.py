"""MuJoCo's C engine on a pool of CPU threads, bit-identical to a loop of ``mj_step``."""

import ctypes
import functools
import warnings
from pathlib import Path

import mujoco
import torch
from mujoco import batch
from torch import Tensor

from metarl.envs.physics import POSITION_FIELDS, STATE_FIELDS


class CpuPhysics:
    """:class:`metarl.envs.physics.Physics` on ``mujoco.batch.Batch``, in float64.

    One ``MjData`` a thread serves all worlds: it stays in the cache, which beats the recomputation that one
    ``MjData`` a world would save (half-cheetah, 800 worlds, 1 substep: 205k against 154k steps/s on 2 cores).
    """

    num_overflowed = 0  # its arena grows

    def __init__(self, model: mujoco.MjModel, num_worlds: int, *, num_threads: int = 0) -> None:
        if num_worlds < 1:
            raise ValueError(f"num_worlds is {num_worlds}: use at least 1")
        if num_threads < 0:
            raise ValueError(f"num_threads is {num_threads}: use 0 for every core, or a positive number")
        self.num_worlds = num_worlds
        self.device = torch.device("cpu")
        self.timestep = float(model.opt.timestep)
        self._model, self._num_threads = model, num_threads
        _stop_clock()
        silence()
        self._batch = batch.Batch(model, nsim=num_worlds, nthread=num_threads)
        self._stage = mujoco.mjtStage.mjSTAGE_NONE
        self._bound: dict[str, Tensor] = {}
        self._expanded: dict[str, Tensor] = {}
        self._flags = int(model.opt.disableflags)
        self._state = {name: field for name in sorted(STATE_FIELDS) if (field := self.bind(name)).numel()}
        self._time = self._batch.bind("time")
        self.reset(torch.ones(num_worlds, dtype=torch.bool))

    def bind(self, field: str) -> Tensor:
        if field not in self._bound:
            if field not in STATE_FIELDS:
                self._stage = max(self._stage, self._needed(field), key=int)
            self._bound[field] = _as_tensor(self._batch.bind(field))
        return self._bound[field]

    def _needed(self, field: str) -> mujoco.mjtStage:
        """How far a derived field has to be computed; the sensors say it for themselves."""
        if field == "sensordata" and self._model.nsensor:
            return mujoco.mjtStage(int(self._model.sensor_needstage.max()))
        return mujoco.mjtStage.mjSTAGE_POS if field in POSITION_FIELDS else mujoco.mjtStage.mjSTAGE_VEL

    def expand(self, field: str) -> Tensor:
        if field not in self._expanded:
            self._expanded[field] = _as_tensor(self._batch.expand(field))
        return self._expanded[field]

    def set_const(self) -> None:
        self._batch.set_const()

    def step(self, substeps: int, awake: Tensor | None = None) -> Tensor:
        before = self._time.copy()  # numpy: beside a step of physics every small call of torch's shows
        ids = None if awake is None else awake.numpy()
        if self._stage == mujoco.mjtStage.mjSTAGE_POS:
            self._batch.step(ids=ids, nstep=substeps)
            self._forward_positions(awake)
        else:
            self._batch.step(ids=ids, nstep=substeps, stage=self._stage)
        # MuJoCo resets a world whose state blew up and goes on as if nothing had happened; only its time tells.
        failed = ~(self._time > before)  # NaN is not
        return torch.from_numpy(failed if ids is None else failed & ids)

    def reset(self, mask: Tensor) -> None:
        self._batch.reset(ids=mask.numpy(), stage=mujoco.mjtStage.mjSTAGE_NONE)
        self._time[mask.numpy()] = 1.0  # s; so that MuJoCo's own reset, to 0, shows in the first step too

    def forward(self, mask: Tensor) -> None:
        if self._stage == mujoco.mjtStage.mjSTAGE_POS:
            self._forward_positions(mask)
        elif self._stage != mujoco.mjtStage.mjSTAGE_NONE:
            self._batch.forward(ids=mask.numpy(), stage=self._stage)

    def _forward_positions(self, mask: Tensor | None) -> None:
        """Positions alone: without the contacts and constraints that the next step finds again (5 % of a step)."""
        flags = self.expand("opt.disableflags")
        flags |= int(mujoco.mjtDisableBit.mjDSBL_CONSTRAINT)
        self._batch.forward(ids=None if mask is None else mask.numpy(), stage=self._stage)
        flags.fill_(self._flags)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: field.clone() for name, field in self._state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, field in self._state.items():
            field.copy_(state[name])
        self.forward(torch.ones(self.num_worlds, dtype=torch.bool))


@functools.cache
def _stop_clock() -> None:
    """Takes away the clock by which MuJoCo times its own stages, some 4 % of a step; nothing here reads the times.

    ``mujoco.set_mjcb_time(None)`` would put the Python package's own clock back.
    """
    for library in Path(mujoco.__file__).parent.glob("libmujoco*"):
        ctypes.c_void_p.in_dll(ctypes.CDLL(str(library)), "mjcb_time").value = None


@functools.cache
def silence() -> None:
    """Lets MuJoCo's warnings be: of each world that fails it would tell on stderr and in MUJOCO_LOG.TXT, without end.

    They go to a function of its own that does nothing with a string, for one of Python's would need the interpreter
    in the threads of a batch. A handler that somebody else has set stays.
    """
    for path in Path(mujoco.__file__).parent.glob("libmujoco*"):
        library = ctypes.CDLL(str(path))
        handler = ctypes.c_void_p.in_dll(library, "mju_user_warning")
        if not handler.value:
            handler.value = ctypes.cast(library.mju_str2Type, ctypes.c_void_p).value


def _as_tensor(array: object) -> Tensor:
    """A zero-copy view; derived fields come read-only from MuJoCo, and nothing here writes them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
