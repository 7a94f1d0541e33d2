"""How a task is seen: what a video needs of it, and pictures of a MuJoCo model, with whatever OpenGL is here."""

import functools
import importlib
import os
import subprocess
import sys
from typing import Protocol, runtime_checkable

import gymnasium
import mujoco
import numpy as np
from jaxtyping import Float
from mujoco.rendering.classic import gl_context
from numpy.typing import NDArray
from torch import Tensor

SIZE = 480  # pixels, width and height of a picture

PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light/><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 8, 8) as renderer:
    renderer.update_scene(data)
    raise SystemExit(0 if renderer.render().any() else 1)
"""
PROBE_SECONDS = 60.0
MISSING = (
    "MuJoCo found no OpenGL to draw with on this machine: install the packages libosmesa6, "
    "or libegl1 libgl1 libgl1-mesa-dri (apt-get install, on Debian)"
)


class NoGraphics(ValueError):
    """This machine cannot draw MuJoCo models."""


def find_backend() -> str | None:
    """The first of MuJoCo's OpenGL backends that draws here: ``$MUJOCO_GL``, egl, osmesa, glfw (else None).

    Each is tried in a process of its own: one without its system libraries takes ``import mujoco`` down.
    """
    known = ("cgl",) if sys.platform == "darwin" else ("egl", "osmesa", "glfw")
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    usable = [name for name in known if name != "glfw" or "DISPLAY" in os.environ]
    here = tuple(sorted(os.environ.items()))
    return next((name for name in sorted(usable, key=lambda name: name != asked) if _draws(name, PROBE, here)), None)


@functools.cache
def _draws(backend: str, probe: str, environment: tuple[tuple[str, str], ...]) -> bool:
    """Tried once: a process that draws takes a second to begin."""
    command, variables = [sys.executable, "-c", probe], dict(environment) | {"MUJOCO_GL": backend}
    try:
        return not subprocess.run(command, env=variables, capture_output=True, timeout=PROBE_SECONDS).returncode
    except subprocess.TimeoutExpired:
        return False


def use_backend() -> str:
    """Makes ``mujoco.Renderer`` of this process use the backend of :func:`find_backend`; returns its name.

    MuJoCo chooses once, when it is imported, and cannot know by then what works: its choice is replaced.

    Raises:
        NoGraphics: there is none.
    """
    backend = find_backend()
    if backend is None:
        raise NoGraphics(MISSING)
    gl_context.GLContext = importlib.import_module(f"mujoco.{backend}").GLContext
    return backend


@runtime_checkable
class VisibleTask(Protocol):
    """A task distribution of MuJoCo models, which a video can show; its environments hold :class:`VisibleWorlds`."""

    @property
    def horizon(self) -> int:
        """Steps of an episode."""

    @property
    def frame_skip(self) -> int:
        """Physics substeps a control step."""

    def model_of(self, task: Float[Tensor, "..."]) -> mujoco.MjModel:
        """A model that looks as one task does, goal included.

        A first body that moves about (:func:`moves_about`) is followed, seen from the side; else the model's own free
        camera shows the scene (``vis.global_`` and ``stat``).
        """


def moves_about(model: mujoco.MjModel) -> bool:
    """Whether the first body leaves its place: it has joints, and the first of them is no hinge."""
    return bool(model.body_dofnum[1] > 0 and model.jnt_type[0] != mujoco.mjtJoint.mjJNT_HINGE)


@runtime_checkable
class VisibleWorlds(Protocol):
    """Worlds of a :class:`VisibleTask`, ``env.worlds``."""

    def pose(self, world: int) -> Float[Tensor, " qpos"]:
        """The generalized positions of one world, in a new tensor."""


@runtime_checkable
class PicturedTask(Protocol):
    """A task distribution whose worlds draw themselves; its environments hold :class:`PicturedWorlds`."""

    @property
    def frames_per_second(self) -> float:
        """Steps of a second; 0: the worlds cannot draw themselves."""


@runtime_checkable
class PicturedWorlds(Protocol):
    """Worlds of a :class:`PicturedTask`, ``env.worlds``."""

    def picture(self, world: int) -> NDArray[np.uint8]:
        """What one world looks like, [height, width, RGB]."""


class Camera:
    """Pictures of a model; a body that moves about is followed from its side.

    Raises:
        DependencyNotInstalled: MuJoCo finds no OpenGL to draw with.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._view = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._view)
        if moves_about(model):
            self._view.type, self._view.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1
            mujoco.mj_forward(model, self._data)
            self._view.distance = 3 * radius_of(model, self._data)
            self._view.azimuth, self._view.elevation = 90.0, -20.0
        try:
            use_backend()
            self._renderer = mujoco.Renderer(model, SIZE, SIZE)
        except Exception as error:  # each backend has its own
            raise gymnasium.error.DependencyNotInstalled(MISSING) from error

    def picture(self, qpos: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The model at ``qpos``, [height, width, RGB]."""
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._view)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def radius_of(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Of the ball around the center of mass of the first body that holds every moving part, in a known state [m]."""
    moving = model.geom_bodyid > 0
    away = np.linalg.norm(data.geom_xpos[moving] - data.subtree_com[1], axis=1)
    return float((away + model.geom_rbound[moving]).max())
