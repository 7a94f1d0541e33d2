"""What a task sees of its worlds: named positions and orientations, in tensors over worlds."""

from collections.abc import Mapping
from functools import cache, cached_property

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.metaworld.simulation import PADS
from metarl.envs.physics import constant

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
        low, high = constant(self.raw_hand, HAND_LOW), constant(self.raw_hand, HAND_HIGH)
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

    Four vectors are proportional to the quaternion q, the rows of 4 q q'; the one of its largest component is taken.
    """
    linear, constant = _quaternion_products(matrix.dtype, matrix.device)
    products = torch.addmm(constant, matrix, linear)
    diagonal = matrix[:, ::4]  # orders x^2, y^2, z^2 and its sum w^2 as SciPy does, at near ties too
    largest = torch.cat([diagonal, diagonal.sum(-1, keepdim=True)], dim=-1).argmax(-1)
    chosen = products.unflatten(-1, (4, 4))[torch.arange(len(matrix), device=matrix.device), largest]
    return torch.nn.functional.normalize(chosen, dim=-1)


@cache
def _quaternion_products(
    dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "9 16"], Float[Tensor, " 16"]]:
    """4 q q' as a linear function of the nine numbers of a rotation matrix, and a constant."""
    linear, constant = torch.zeros(3, 3, 4, 4), torch.zeros(4, 4)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        linear[i, i, i, i], linear[j, j, i, i], linear[k, k, i, i] = 1.0, -1.0, -1.0  # x^2, y^2, z^2
        linear[i, i, 3, 3] = 1.0  # w^2
        for row, column in ((i, j), (j, i)):  # xy, yz, zx
            linear[i, j, row, column] = linear[j, i, row, column] = 1.0
        for row, column in ((i, 3), (3, i)):  # xw, yw, zw
            linear[k, j, row, column], linear[j, k, row, column] = 1.0, -1.0
    constant.fill_diagonal_(1.0)
    return linear.view(9, 16).to(device, dtype), constant.view(16).to(device, dtype)
