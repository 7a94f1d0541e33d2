"""MuJoCo Warp: the worlds of one model on a GPU, or on Warp's CPU device, in float32.

The substeps are recorded once in a graph that reads and writes fixed addresses; torch sees those as live tensors.
Whatever would move them is refused, or records the graph again.
"""

import atexit
import copy
import os
import shutil
import tempfile
from collections.abc import Callable

import mujoco
import numpy as np
import torch
import warp as wp
from torch import Tensor

wp.config.log_level = wp.LOG_ERROR  # what goes wrong raises
# A newer driver would have Warp look for PTX of the oldest architecture: what is compiled beforehand is for one card.
wp.config.cuda_output = wp.config.cuda_output or "cubin"
if "WARP_CACHE_PATH" not in os.environ and os.path.expanduser("~") == "~":  # no home: Warp would make a folder "~" here
    wp.config.kernel_cache_dir = tempfile.mkdtemp(prefix="warp-")
    atexit.register(shutil.rmtree, wp.config.kernel_cache_dir, ignore_errors=True)
import mujoco_warp as mjw  # noqa: E402 - its import starts Warp, which would tell of it

from metarl.envs.physics import POSITION_FIELDS, STATE_FIELDS  # noqa: E402
from metarl.envs.physics.buffers import buffer_sizes, lack_of_memory, solvable  # noqa: E402
from metarl.envs.physics.candidates import narrowed  # noqa: E402

# What set_const computes from masses and inertias; sized per world as soon as one of those is.
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_invweight0", "actuator_acc0")
INERTIAL = frozenset(
    ("body_mass", "body_inertia", "body_ipos", "body_iquat", "dof_armature", "body_pos", "body_quat", "qpos0")
)
PLACES = frozenset(("body_pos", "body_quat", "geom_pos", "geom_quat"))
NONE, POS, VEL, ACC = (int(getattr(mujoco.mjtStage, f"mjSTAGE_{name}")) for name in ("NONE", "POS", "VEL", "ACC"))
BAD = 1e10  # MuJoCo's own bound (mju_isBad) on positions, velocities and accelerations


class WarpPhysics:
    """:class:`metarl.envs.physics.Physics` on ``mujoco_warp``.

    A world whose state blew up stays so until it is reset; the others go on, their bits unharmed. Contacts beyond
    ``max_contacts`` (a pool of all worlds, this many each) or constraints beyond ``max_constraints`` (of one world) are
    dropped; :attr:`num_overflowed` counts the episodes to which that happened.

    Args:
        device: ``cuda``, ``cuda:1`` ..., or ``cpu`` for Warp's own CPU device.
        max_contacts: by default, as :func:`buffer_sizes` measures them.
        max_constraints: likewise.
        collisions: which pairs convex collision looks at (:mod:`metarl.envs.physics.candidates`): ``library``, as
            ``mujoco_warp`` has it; ``sorted``, by type; ``culled``, and not those certainly apart. Contacts are the
            same. What that saves is not measured on a GPU, so it is off by default.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        *,
        device: str | torch.device = "cuda",
        max_contacts: int | None = None,
        max_constraints: int | None = None,
        collisions: str = "library",
    ) -> None:
        if num_worlds < 1:
            raise ValueError(f"num_worlds is {num_worlds}: use at least 1")
        if max_contacts is None or max_constraints is None:
            contacts, constraints = buffer_sizes(model)
            max_contacts, max_constraints = max_contacts or contacts, max_constraints or constraints
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()  # what torch keeps for later is of no use to Warp
        self.num_worlds, self._collisions = num_worlds, collisions
        self.device = torch.device(device)
        self.timestep = float(model.opt.timestep)
        self._wp_device = wp.get_device(str(self.device))
        with wp.ScopedDevice(self._wp_device), lack_of_memory(num_worlds):
            model = solvable(model)
            self._m = mjw.put_model(model)
            self._d = mjw.make_data(model, nworld=num_worlds, nconmax=max_contacts, njmax=max_constraints)
            self._unwelded = wp.full_like(self._m.body_weldid, 1)
        self._m.opt.warn_overflow = 0
        # Two boxes meet as in C, by faces and edges; Warp's GJK parts from that by centimeters where they press.
        self._m.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
        if torch.are_deterministic_algorithms_enabled():
            self._m.opt.deterministic = int(mjw.DeterminismType.ALL)
        self._sensor_stage = int(model.sensor_needstage.max()) if model.nsensor else NONE
        self._lagging = bool(np.isin(model.eq_type, (mujoco.mjtEq.mjEQ_WELD, mujoco.mjtEq.mjEQ_CONNECT)).any())
        self._needed = VEL if self._lagging else NONE
        self._bound: dict[str, Tensor] = {}
        self._expanded: dict[str, Tensor] = {}
        self._views: list[tuple[str, Tensor, int]] = []  # what was given out, and its address
        self._graphs: dict[str, wp.Graph] = {}
        self._state = {name: wp.to_torch(a) for name in sorted(STATE_FIELDS) if (a := getattr(self._d, name)).size}
        self._qpos, self._qvel, self._qacc = (wp.to_torch(getattr(self._d, name)) for name in ("qpos", "qvel", "qacc"))
        self._mask = torch.ones(num_worlds, dtype=torch.bool, device=self.device)
        self._wp_mask = wp.from_torch(self._mask, dtype=wp.bool)
        self._overflow = wp.to_torch(self._d.overflow)
        self._overflowed = torch.zeros((), dtype=torch.int64, device=self.device)
        self._stale = False  # derived fields belong to the state before a reset
        self.reset(self._mask.clone())

    @property
    def num_overflowed(self) -> int:
        """Episodes in which contacts or constraints were dropped; reading it makes a GPU wait."""
        return int(self._overflowed + (self._overflow != 0).sum())

    def bind(self, field: str) -> Tensor:
        if field not in self._bound:
            if field not in STATE_FIELDS:
                stage = POS if field in POSITION_FIELDS else VEL
                self._need(self._sensor_stage if field == "sensordata" else stage)
            tensor = wp.to_torch(getattr(self._d, field))
            self._bound[field] = tensor.flatten(-2) if field.endswith("mat") else tensor
            self._views.append((field, self._bound[field], tensor.data_ptr()))
        return self._bound[field]

    def expand(self, field: str) -> Tensor:
        if field not in self._expanded:
            *parents, leaf = field.split(".")
            owner = self._m
            for parent in parents:
                owner = getattr(owner, parent)
            shared = getattr(owner, leaf)
            values = np.repeat(shared.numpy()[:1], self.num_worlds, axis=0)
            array = wp.array(values, dtype=shared.dtype, device=self._wp_device)
            self._wait()  # what is under way reads the array that is given up
            array._is_batched = True  # as put_model marks what it sizes per world
            setattr(owner, leaf, array)
            self._expanded[field] = wp.to_torch(array)
            self._views.append((field, self._expanded[field], self._expanded[field].data_ptr()))
            self._graphs.clear()  # they hold the old address
            for derived in DERIVED if field in INERTIAL else ():
                self.expand(derived)
        return self._expanded[field]

    def _need(self, stage: int) -> None:
        """Derived fields will be computed up to ``stage`` after each step."""
        if stage > self._needed:
            self._needed = stage
            self._graphs.clear()

    def set_const(self) -> None:
        self._launch(None, lambda: mjw.set_const(self._m, self._d))

    def step(self, substeps: int, awake: Tensor | None = None) -> Tensor:
        if self._stale:
            self.forward(self._mask)
        self._launch(f"step {substeps}", lambda: self._advance(substeps))
        numbers = torch.cat([self._qpos, self._qvel, self._qacc], dim=1)
        return ~(numbers.abs() <= BAD).all(dim=1)

    def _advance(self, substeps: int) -> None:
        for substep in range(substeps):
            if self._lagging and substep:
                self._derive(VEL)
            with narrowed(self._collisions):
                mjw.step(self._m, self._d)
        self._derive(self._needed)

    def _derive(self, stage: int) -> None:
        """Brings what follows from ``qpos`` and ``qvel`` up to date.

        Welds and connects need that between substeps, too: ``mujoco_warp`` 3.17 takes the velocities that accelerate
        their reference from the substep before (C MuJoCo: from this one), which moves a Sawyer arm by millimeters and
        makes the next step depend on more than the state.
        """
        m, d = self._m, self._d
        if stage >= ACC:
            with narrowed(self._collisions):
                mjw.forward(m, d)
        elif stage >= POS:
            mjw.fwd_kinematics(m, d)
            if "sensordata" in self._bound:
                mjw.sensor_pos(m, d)
            if stage >= VEL:
                mjw.com_vel(m, d)
                if "sensordata" in self._bound:
                    mjw.sensor_vel(m, d)

    def reset(self, mask: Tensor) -> None:
        self._overflowed += ((self._overflow != 0) & mask).sum()
        self._mask.copy_(mask)
        self._launch("reset", lambda: mjw.reset_data(self._m, self._d, reset=self._wp_mask))
        self._stale = True

    def forward(self, mask: Tensor) -> None:
        """All worlds are computed: those outside ``mask`` find what they had."""
        self._launch("forward", self._forward)
        self._stale = False

    def _forward(self) -> None:
        if not PLACES.isdisjoint(self._expanded):
            self._place_static_geoms()
        self._derive(self._needed)

    def _place_static_geoms(self) -> None:
        """Kinematics as if no body were welded to the world: Warp places the geoms of those only once."""
        model = copy.copy(self._m)
        model.body_weldid = self._unwelded
        mjw.kinematics(model, self._d)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: field.clone() for name, field in self._state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, field in self._state.items():
            field.copy_(state[name])
        self.forward(self._mask)

    def _launch(self, name: str | None, work: Callable[[], None]) -> None:
        """Runs ``work`` in torch's order; what has a ``name`` is recorded once, and replayed."""
        with wp.ScopedDevice(self._wp_device), lack_of_memory(self.num_worlds):
            if name is None or name not in self._graphs:
                self._wait()  # Warp records on a stream of its own
                self._record(name, work) if name else work()
                wp.synchronize_device()
            if name is not None:
                self._refuse_moved_tensors()
                on_gpu = self._wp_device.is_cuda
                stream = wp.stream_from_torch(torch.cuda.current_stream(self.device)) if on_gpu else None
                wp.capture_launch(self._graphs[name], stream=stream)

    def _record(self, name: str, work: Callable[[], None]) -> None:
        before = self.state_dict()
        self._wait()
        work()  # loads the kernels, which cannot be done while recording
        with wp.ScopedCapture() as capture:
            work()
        self._graphs[name] = capture.graph
        wp.synchronize_device()
        for field, value in before.items():
            self._state[field].copy_(value)
        self._wait()
        self._derive(self._needed)

    def _wait(self) -> None:
        """Until torch has done on the GPU what it was asked for."""
        if self._wp_device.is_cuda:
            torch.cuda.synchronize(self.device)

    def _refuse_moved_tensors(self) -> None:
        for name, tensor, address in self._views:
            if tensor.data_ptr() != address:
                raise RuntimeError(f"{name} was given other memory (resize_, set_ or .data): write into it in place")
