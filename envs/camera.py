"""Pictures of a MuJoCo model, for those who watch a world from other libraries; videos of runs are metarl's."""

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.api import moves_about

SIZE = 480  # pixels, width and height of a picture


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
