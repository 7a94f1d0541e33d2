"""What a task sees of its worlds: named positions and orientations, in tensors over worlds."""

from collections.abc import Mapping
from functools import cached_property

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from envs.metaworld.simulation import PADS

HAND_LOW = (-0.525, 0.348, -0.0525)
HAND_HIGH = (0.525, 1.025, 0.7)
FINGER_SPAN = 0.1  # m; the fingers' distance counts as 1 from here

FIELDS = ("qpos", "xpos", "xquat", "xmat", "site_xpos", "geom_xpos", "geom_xmat")
OBJECTS = {
    "xpos": mujoco.mjtObj.mjOBJ_BODY,
    "xquat": mujoco.mjtObj.mjOBJ_BODY,
    "xmat": mujoco.mjtObj.mjOBJ_BODY,
    "site_xpos": mujoco.mjtObj.mjOBJ_SITE,
    "geom_xpos": mujoco.mjtObj.mjOBJ_GEOM,
    "geom_xmat": mujoco.mjtObj.mjOBJ_GEOM,
    "sensordata": mujoco.mjtObj.mjOBJ_SENSOR,
}

Points = Float[Tensor, "world 3"]


class Names:
    """The named things of one model, looked up in live fields ``[world, thing, ...]`` of its data."""

    def __init__(self, model: mujoco.MjModel, fields: Mapping[str, Tensor]) -> None:
        self._model, self._fields = model, fields
        self._index: dict[tuple[str, str], int] = {}

    def get(self, field: str, name: str) -> Tensor:
        """``field`` of the body, site or geom called ``name`` [world ...]; ``qpos`` of a joint with one degree."""
        if (field, name) not in self._index:
            if field == "qpos":
                index = int(self._model.joint(name).qposadr[0])
            else:
                index = mujoco.mj_name2id(self._model, OBJECTS[field], name)
                if index < 0:
                    raise KeyError(f"the model has no {name!r} in {field}")
                if field == "sensordata":
                    index = int(self._model.sensor_adr[index])
            self._index[field, name] = index
        return self._fields[field][:, self._index[field, name]]


class Scene:
    """All worlds of one task at one moment; lengths in m, world frame.

    ``episode`` holds what reset fixed for the episode, under the names that the task's ``reset`` gave:
    ``target``, ``obj_init``, ``init_tcp`` and whatever else it needs.
    """

    def __init__(self, names: Names, episode: dict[str, Tensor], action: Float[Tensor, "world 4"]) -> None:
        self._names = names
        self.episode = episode
        self.action = action

    def body(self, name: str) -> Points:
        return self._names.get("xpos", name)

    def body_quat(self, name: str) -> Float[Tensor, "world 4"]:
        """w, x, y, z."""
        return self._names.get("xquat", name)

    def body_matrix(self, name: str) -> Float[Tensor, "world 9"]:
        return self._names.get("xmat", name)

    def site(self, name: str) -> Points:
        return self._names.get("site_xpos", name)

    def geom(self, name: str) -> Points:
        return self._names.get("geom_xpos", name)

    def geom_matrix(self, name: str) -> Float[Tensor, "world 9"]:
        return self._names.get("geom_xmat", name)

    def joint(self, name: str) -> Float[Tensor, " world"]:
        """Position of a joint with one degree of freedom [rad or m]."""
        return self._names.get("qpos", name)

    def touching(self) -> Bool[Tensor, " world"]:
        """Whether both fingers press on the geom that the task names in ``touch``."""
        left, right = (self._names.get("sensordata", pad) for pad in PADS)
        return (left != 0) & (right != 0)

    @cached_property
    def raw_hand(self) -> Points:
        return self.body("hand")

    @cached_property
    def hand(self) -> Points:
        """The hand as observed: inside the observation space."""
        low, high = self.raw_hand.new_tensor(HAND_LOW), self.raw_hand.new_tensor(HAND_HIGH)
        return self.raw_hand.clamp(low, high)

    @cached_property
    def opened(self) -> Float[Tensor, " world"]:
        """How far the gripper is open, 0 to 1."""
        span = (self.body("rightclaw") - self.body("leftclaw")).square().sum(-1).sqrt()
        return (span / FINGER_SPAN).clamp(0.0, 1.0)

    @cached_property
    def tcp(self) -> Points:
        """The tool center point: midway between the fingertips."""
        return (self.site("rightEndEffector") + self.site("leftEndEffector")) / 2

    @property
    def left_pad(self) -> Points:
        return self.body("leftpad")

    @property
    def right_pad(self) -> Points:
        return self.body("rightpad")

    @property
    def target(self) -> Points:
        return self.episode["target"]

    @property
    def obj_init(self) -> Points:
        return self.episode["obj_init"]

    @property
    def init_tcp(self) -> Points:
        return self.episode["init_tcp"]

    @property
    def gripper_effort(self) -> Float[Tensor, " world"]:
        """The last action number: positive closes the gripper."""
        return self.action[:, 3]


def quaternion_of(matrix: Float[Tensor, "world 9"]) -> Float[Tensor, "world 4"]:
    """x, y, z, w of a rotation matrix, with the sign that SciPy's ``Rotation.from_matrix`` gives it.

    The largest of x^2, y^2, z^2, w^2 decides which of four proportional vectors is normalized.
    """
    m = matrix.unflatten(-1, (3, 3))
    diagonal = m.diagonal(dim1=-2, dim2=-1)
    trace = diagonal.sum(-1)
    xy, xz, yz = m[:, 1, 0] + m[:, 0, 1], m[:, 2, 0] + m[:, 0, 2], m[:, 2, 1] + m[:, 1, 2]
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xx, yy, zz = (1 - trace[:, None] + 2 * diagonal).unbind(-1)
    rows = torch.stack([xx, xy, xz, wx, xy, yy, yz, wy, xz, yz, zz, wz, wx, wy, wz, 1 + trace], dim=-1)
    largest = torch.cat([diagonal, trace[:, None]], dim=-1).argmax(-1)
    chosen = rows.unflatten(-1, (4, 4)).gather(1, largest[:, None, None].expand(-1, 1, 4))[:, 0]
    return chosen / chosen.square().sum(-1, keepdim=True).sqrt()
