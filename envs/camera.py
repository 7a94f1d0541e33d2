"""How a task is seen: what a video needs of it, and pictures of a MuJoCo model for those who watch from other
libraries."""

from typing import Protocol, runtime_checkable

import gymnasium
import mujoco
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

SIZE = 480  # pixels, width and height of a picture


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
            self._view.azimuth, self._view.elevation, self._view.distance = 90.0, -20.0, 3 * self._radius()
        try:
            self._renderer = mujoco.Renderer(model, SIZE, SIZE)
        except Exception as error:  # each backend has its own
            raise gymnasium.error.DependencyNotInstalled(
                "MuJoCo found no OpenGL to draw with: set MUJOCO_GL=egl or osmesa, with the packages libegl1 libgl1 "
                "libgl1-mesa-dri or libosmesa6"
            ) from error

    def picture(self, qpos: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The model at ``qpos``, [height, width, RGB]."""
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._view)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()

    def _radius(self) -> float:
        """Of the ball around the center of mass that holds every moving part [m]."""
        mujoco.mj_forward(self._model, self._data)
        moving = self._model.geom_bodyid > 0
        away = np.linalg.norm(self._data.geom_xpos[moving] - self._data.subtree_com[1], axis=1)
        return float((away + self._model.geom_rbound[moving]).max())
