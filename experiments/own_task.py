"""A task of one's own, complete in this file: an arm that must point at an angle it cannot see.

Five functions say what the task is: which tasks there are, the model, where an episode begins, what is observed, what
is earned; a sixth shows the goal in videos. Worlds side by side, time limits, resets, snapshots, training and tests are
the library's, on CPU threads and on a GPU. :class:`metarl.envs.mujoco_task.MujocoTask` has more to say where a task
needs it: ``measure``, ``terminated``, ``success``, ``apply_task`` (tasks that differ in the model), ``in_words`` (the
caption of a video).

    metarl train pointing_arm --code experiments/own_task.py --name arm
    metarl evaluate runs/arm --code experiments/own_task.py
    metarl video runs/arm --code experiments/own_task.py
"""

import math
import sys
from dataclasses import dataclass

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl import MAML, Experiment, GaussianMLP, presets
from metarl.cli import main
from metarl.envs import EnvSpec, MujocoTask
from metarl.envs.draws import normal_like
from metarl.envs.physics import Physics, write

XML = """
<mujoco model="pointing arm">
  <option timestep="0.02"> <flag gravity="disable"/> </option>
  <worldbody>
    <light pos="0 -2 2" dir="0 1 -1"/>
    <geom type="plane" size="3 3 .1" pos="0 0 -1.2" rgba=".9 .9 .9 1"/>
    <body>
      <joint name="shoulder" axis="0 1 0" damping="0.4"/>
      <geom type="capsule" fromto="0 0 0 0 0 1" size="0.05" mass="1" rgba=".8 .4 .3 1"/>
    </body>
  </worldbody>
  <actuator> <motor joint="shoulder" gear="3" ctrllimited="true" ctrlrange="-1 1"/> </actuator>
</mujoco>
"""


@dataclass(frozen=True)
class PointingArm(MujocoTask):
    """Task parameter: goal angle g [rad], uniform in [-max_angle, max_angle]; 0 is upright."""

    name = "pointing_arm"

    horizon: int = 50
    """Steps of an episode, of 0.04 s each."""
    frame_skip: int = 2
    """Substeps of 0.02 s a control step."""
    max_angle: float = math.pi / 2
    """Largest goal angle [rad]."""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(obs_dim=2, action_dim=1, horizon=self.horizon, terminates=False, has_success=False)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
        return self.max_angle * (2 * torch.rand(num_tasks, generator=generator, device=generator.device) - 1)

    def model(self) -> mujoco.MjModel:
        return mujoco.MjModel.from_xml_string(XML)

    def model_of(self, task: Float[Tensor, ""]) -> mujoco.MjModel:
        """The goal is a green ball where the arm's tip should be."""
        spec = mujoco.MjSpec.from_string(XML)
        place = [math.sin(task), 0, math.cos(task)]
        spec.worldbody.add_site(name="goal", pos=place, size=[0.08, 0, 0], rgba=[0.2, 0.8, 0.2, 1])
        return spec.compile()

    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        angle = physics.bind("qpos")  # [world, 1]
        write(angle, mask, 0.1 * normal_like(angle, generator))

    def observe(self, physics: Physics) -> Float[Tensor, "world 2"]:
        return torch.cat([physics.bind("qpos"), physics.bind("qvel")], dim=1)

    def reward(
        self,
        physics: Physics,
        before: Tensor,
        action: Float[Tensor, "world 1"],
        task: Float[Tensor, " world"],
    ) -> Float[Tensor, " world"]:
        return -(physics.bind("qpos")[:, 0] - task).abs()


PointingArm.presets = {"default": PointingArm()}
presets.add(
    {
        "default": Experiment(
            task=PointingArm(),
            learner=MAML(policy=GaussianMLP((64, 64), "tanh"), inner_lr=0.1),
            num_tasks=20,
            iterations=30,
        )
    }
)

if __name__ == "__main__":
    main(["train", PointingArm.name, *sys.argv[1:]])
