"""MuJoCo tasks drawn offscreen, with whatever OpenGL this machine has."""

import copy
from collections.abc import Iterator, Sequence

import mujoco
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metarl.envs.camera import VisibleTask, moves_about, radius_of, use_backend

Picture = NDArray[np.uint8]
"""Height x width x RGB."""

SHORT_EPISODE = 3.0  # simulated seconds; a shorter one is over before one has seen it, and plays at half speed
SUPERSAMPLING = 2  # smooths edges and textures alike, at the price of 4-fold multisampling
PALENESS = 0.65  # how far floor and sky go towards white, so that the bodies stand out
AZIMUTH, ELEVATION = 90.0, -12.0  # degrees: along +y, from a little above; of the camera that follows a model
DISTANCE = 3.0  # of that camera, in radii of the model
LINE_COLOR = np.array([0.78, 0.33, 0.24, 1.0], np.float32)


class Bodies:
    """A scene of :mod:`metarl.films.video`: a MuJoCo model that moves about, followed from its side, or one that
    stands.

    Raises:
        NoGraphics: no OpenGL.
    """

    def __init__(self, task: VisibleTask, parameter: Float[Tensor, "..."]) -> None:
        use_backend()
        self._model = task.model_of(parameter)
        self._step_seconds = self._model.opt.timestep * task.frame_skip
        self._slowed = task.horizon * self._step_seconds < SHORT_EPISODE
        self.steps_per_second = (0.5 if self._slowed else 1.0) / self._step_seconds

    def clock(self, step: int) -> str:
        return f"{step * self._step_seconds:.2f} s" + (", half speed" if self._slowed else "")

    def panels(
        self, episodes: Sequence[NDArray[np.float64]], steps: Sequence[int], width: int, height: int
    ) -> Iterator[list[Picture]]:
        """Draws qpos [state, nq] of each episode; where the camera moves, a line on the floor tells where it began."""
        model = _restyled(self._model, width * SUPERSAMPLING, height * SUPERSAMPLING)
        data = mujoco.MjData(model)
        starts = [_center(model, data, qpos[0]) for qpos in episodes]
        radius = radius_of(model, data)
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, camera)
        moves = moves_about(model)
        if moves:
            camera.azimuth, camera.elevation, camera.distance = AZIMUTH, ELEVATION, DISTANCE * radius
        with mujoco.Renderer(model, height * SUPERSAMPLING, width * SUPERSAMPLING) as renderer:
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
            for step in steps:
                pictures = []
                for qpos, start in zip(episodes, starts, strict=True):
                    center = _center(model, data, qpos[min(step, len(qpos) - 1)])
                    if moves:
                        camera.lookat[:] = *center[:2], start[2]
                    renderer.update_scene(data, camera)
                    if moves:
                        _add_line(renderer.scene, start, radius)
                    picture = Image.fromarray(renderer.render())
                    pictures.append(np.asarray(picture.reduce(SUPERSAMPLING)))
                yield pictures


def _restyled(model: mujoco.MjModel, width: int, height: int) -> mujoco.MjModel:
    """A copy with a framebuffer of that size [pixels], and floor and sky paler."""
    model = copy.deepcopy(model)
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0  # shadows alone: 100 ms a picture in software, against 25
    for texture in np.flatnonzero(model.tex_type != mujoco.mjtTexture.mjTEXTURE_CUBE):
        begin = model.tex_adr[texture]
        size = model.tex_height[texture] * model.tex_width[texture] * model.tex_nchannel[texture]
        texels = model.tex_data[begin : begin + size]
        texels[:] = 255 - (1 - PALENESS) * (255.0 - texels)
    return model


def _center(model: mujoco.MjModel, data: mujoco.MjData, qpos: NDArray[np.float64]) -> NDArray[np.float64]:
    """Puts the model into a state; the center of mass of its first body and all that hangs on it."""
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    return data.subtree_com[1].copy()


def _add_line(scene: mujoco.MjvScene, start: NDArray[np.float64], radius: float) -> None:
    """Draws a line across the floor (z = 0) under ``start``."""
    size, position = np.array([0.02, 2.0, 0.002]) * radius, np.array([*start[:2], 0.0])
    box, rotation = mujoco.mjtGeom.mjGEOM_BOX, np.eye(3).ravel()
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], box, size, position, rotation, LINE_COLOR)
    scene.ngeom += 1
