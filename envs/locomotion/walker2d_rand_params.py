"""The walker with masses, inertias, dampings and friction of its own in every task (Rothfuss et al. 2019).

Task parameter: 65 multipliers, for 8 masses and 24 inertias (1.5^u), 9 dampings (1.3^u) and 24 friction
coefficients (1.5^u), each u uniform in [-3, 3]; see :mod:`metarl.envs.locomotion.random_dynamics`.
Reward: forward velocity + 1 - 0.001 |action|^2. Horizon 200 (v5: 1,000).
Body, observation and termination: :mod:`metarl.envs.locomotion.walker2d`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarl.envs.locomotion.planar import RAND_PARAM_ENVS, V5
from metarl.envs.locomotion.random_dynamics import RandomDynamics
from metarl.envs.locomotion.walker2d import Walker2d
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class Walker2dRandParams(Walker2d, RandomDynamics):
    """Presets: promp, pearl and varibad, which are one: rand_param_envs' ``walker2d_rand_params.py``; v5 (Gymnasium's
    Walker2d-v5 under the same multipliers)."""

    name: ClassVar[str] = "walker2d_rand_params"
    presets: ClassVar[Mapping[str, TaskDistribution]]


RAND_PARAM_WALKER = Walker2dRandParams(**RAND_PARAM_ENVS)
Walker2dRandParams.presets = {
    "promp": RAND_PARAM_WALKER,
    "pearl": RAND_PARAM_WALKER,
    "varibad": RAND_PARAM_WALKER,
    "v5": Walker2dRandParams(**V5, even_feet=True),
}
