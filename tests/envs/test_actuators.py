"""Models whose actuators would do nothing with an action are refused before any work; the others move."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import pytest
import torch

from metarl import MAML, Experiment
from metarl.envs.actuators import require_actuators
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.physics import Physics
from metarl.envs.registry import TASKS
from metarl.runs.folder import create_run

MODEL = """
<mujoco>
  <option timestep="0.02"> <flag gravity="disable" {flag}/> </option>
  <worldbody>
    <body>
      <joint name="shoulder" axis="0 1 0" damping="0.4"/>
      <geom type="capsule" fromto="0 0 0 0 0 1" size="0.05" mass="1"/>
      <site name="tip" pos="0 0 1"/>
    </body>
  </worldbody>
  <tendon> <spatial name="rope"> <site site="tip"/> <site site="anchor"/> </spatial> </tendon>
  <actuator> {actuator} </actuator>
</mujoco>
""".replace("<worldbody>", '<worldbody> <site name="anchor" pos="1 0 0"/>')


@dataclass(frozen=True)
class Arm(MujocoTask):
    """Without a ``name``, so that nothing else lists it."""

    actuator: str = ""
    flag: str = ""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(2, 1, self.horizon, terminates=False, has_success=False)

    def sample(self, num_tasks: int, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(num_tasks)

    def model(self) -> mujoco.MjModel:
        return mujoco.MjModel.from_xml_string(MODEL.format(actuator=self.actuator, flag=self.flag))

    def reset_state(self, physics: Physics, mask: Any, generator: torch.Generator) -> None:
        pass

    def observe(self, physics: Physics) -> torch.Tensor:
        return torch.cat([physics.bind("qpos"), physics.bind("qvel")], dim=1)

    def reward(self, physics: Physics, before: Any, action: Any, task: Any) -> torch.Tensor:
        return physics.bind("qpos")[:, 0]


RANGE = 'control range .*: write ctrlrange="low high", the controls that actions of -1 and 1 stand for'
IDLE = {
    "unlimited": ('<motor joint="shoulder" gear="3"/>', rf"actuator 0 \(joint 'shoulder'\) of Arm has the {RANGE}"),
    "named": ('<motor name="pull" joint="shoulder"/>', r"actuator 'pull' of Arm has the control range \[0, 0\]"),
    "position": ('<position joint="shoulder" kp="3"/>', RANGE),
    "velocity": ('<velocity joint="shoulder" kv="3"/>', RANGE),
    "muscle": ('<muscle tendon="rope"/>', RANGE + r" \(a muscle's is 0 1\)"),
    "unlimited, backwards": ('<motor joint="shoulder" ctrllimited="false" ctrlrange="1 -1"/>', r"range \[1, -1\]"),
    "unlimited, a point": ('<motor joint="shoulder" ctrllimited="false" ctrlrange=".5 .5"/>', r"range \[0.5, 0.5\]"),
    "gear 0": ('<motor joint="shoulder" gear="0" ctrlrange="-1 1"/>', "actuator .* of Arm has gear 0"),
    "none": ("", "the model of Arm has no actuators"),
    "the second": (
        '<motor joint="shoulder" ctrlrange="-1 1"/> <motor joint="shoulder"/>',
        r"actuator 1 \(joint 'shoulder'\)",
    ),
}


@pytest.mark.parametrize("kind", IDLE)
@pytest.mark.parametrize("engine", ["cpu", "warp"])
def test_fault_01_an_actuator_that_does_nothing_is_named(kind: str, engine: str) -> None:
    if engine == "warp":
        pytest.importorskip("mujoco_warp")
    actuator, message = IDLE[kind]
    with pytest.raises(BadField, match=message):
        Arm(actuator=actuator).make(1, 1, seed=0, physics=engine)


def test_fault_01_a_model_that_disables_its_actuators_is_refused() -> None:
    motor = '<motor joint="shoulder" group="2" ctrlrange="-1 1"/>'
    with pytest.raises(BadField, match="the model of Arm disables actuation"):
        Arm(actuator=motor, flag='actuation="disable"').make(1, 1, seed=0)
    model = Arm(actuator=motor).model()
    require_actuators(model, "arm")
    model.opt.disableactuator = 1 << 2
    with pytest.raises(BadField, match=r"actuator 0 .* of arm is in group 2, which the model disables"):
        require_actuators(model, "arm")
    for bad in (float("nan"), float("inf")):
        model = Arm(actuator=motor).model()
        model.actuator_ctrlrange[0, 1] = bad
        with pytest.raises(BadField, match="control range"):
            require_actuators(model, "arm")


@pytest.mark.parametrize(
    ("actuator", "low", "high"),
    [
        ('<motor joint="shoulder" gear="3" ctrlrange="-1 1"/>', -1, 1),
        ('<motor joint="shoulder" gear="3" ctrllimited="false" ctrlrange="-1 1"/>', -1, 1),
        ('<motor joint="shoulder" gear="3" ctrlrange="0 2"/>', 0, 1),  # pushes one way: -1 is no torque
        ('<position joint="shoulder" kp="3" ctrlrange="-1 1"/>', -1, 1),
        ('<position joint="shoulder" kp="3" ctrlrange="-2 0"/>', -1, 0),
    ],
)
def test_fault_01_an_actuator_with_a_range_moves_the_arm(actuator: str, low: int, high: int) -> None:
    env = Arm(actuator=actuator).make(1, 2, seed=0)
    env.set_tasks(torch.zeros(1))
    env.reset()
    for _ in range(10):
        step = env.step(torch.tensor([[[-1.0], [1.0]]]))
    assert step.obs[0, :, 0].sign().tolist() == [low, high]


@pytest.mark.parametrize("tasks", [cls for cls in TASKS.values() if issubclass(cls, MujocoTask)])
def test_fault_01_every_task_of_the_package_moves(tasks: type[MujocoTask]) -> None:
    for task in [tasks(), *tasks.presets.values()]:
        require_actuators(task.model(), task.name)


def test_fault_01_no_run_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "arm", Arm)
    monkeypatch.setattr(Arm, "name", "arm")
    experiment = Experiment(task=Arm(actuator='<motor joint="shoulder"/>'), learner=MAML())
    with pytest.raises(BadField, match="actuator 0"):
        create_run(experiment, tmp_path, "run")
    assert list(tmp_path.iterdir()) == []
