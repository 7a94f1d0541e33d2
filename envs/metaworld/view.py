"""How a task looks to the one who watches it."""

import mujoco
import numpy as np
from numpy.typing import NDArray

from metarl.envs.metaworld.resets import starts
from metarl.envs.metaworld.sawyer import SawyerTask
from metarl.envs.metaworld.simulation import compile_model

CENTER, EXTENT = (0.06, 0.65, 0.17), 0.88  # m; what the camera looks at, and two thirds of its distance
AZIMUTH, ELEVATION = 142.0, -28.0  # degrees: over the arm's shoulder; Meta-World's own cameras hang upside down
TABLE_COLOR = (0.7, 0.66, 0.61, 1.0)  # plain and pale in place of dark wood, so that things stand out
GOAL_COLOR, GOAL_RADIUS = (0.1, 0.7, 0.25, 1.0), 0.02


def goal_model(task: SawyerTask, vec: NDArray[np.float64]) -> mujoco.MjModel:
    """The task's model with its things where the random vector puts them, a ball at the target, and a camera."""
    found = starts(task, vec[None])
    model = mujoco.MjModel.__copy__(compile_model(task.model))
    model.body_pos[:] = found.body_pos[0]
    model.site_rgba[:, 3] = 0.0  # Meta-World's marks, of which some are the goals of other tasks
    mark = model.site("mocap")  # its body drags the hand in the physics alone: free to mark the goal
    mark.rgba, mark.size = GOAL_COLOR, GOAL_RADIUS
    model.body("mocap").pos = found.episode["target"][0].numpy()
    table = model.material("table_wood")
    table.texid, table.rgba = -1, TABLE_COLOR
    model.stat.center, model.stat.extent = CENTER, EXTENT
    model.vis.global_.azimuth, model.vis.global_.elevation = AZIMUTH, ELEVATION
    return model
