"""TorchRL as a client: its wrapper of Gymnasium's environments, single and batched."""

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchrl")
from torchrl.envs import GymEnv, GymWrapper
from torchrl.envs.utils import check_env_specs

from metarl.envs.gymnasium_env import GymnasiumEnv
from metarl.envs.vector_env import TaskVectorEnv

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["Navigation", "TabularMDP", "Bandit"])
def test_its_maker_makes_tasks_that_pass_its_check(name: str) -> None:
    """It hands over options of its own, and makes the environment without them where they are a TypeError."""
    env = GymEnv(f"metarl/{name}-v0")
    check_env_specs(env)


def test_an_unknown_option_is_the_error_that_it_expects() -> None:
    with pytest.raises(TypeError, match="hrizon is no option of navigation"):
        GymEnv("metarl/Navigation-v0", hrizon=3)


def test_its_rollout_is_ours() -> None:
    wrapped, plain = (
        GymWrapper(GymnasiumEnv("navigation", task=[0.3, 0.2])),
        GymnasiumEnv("navigation", task=[0.3, 0.2]),
    )
    wrapped.set_seed(0)
    found = wrapped.rollout(10, break_when_any_done=False)
    plain.reset(seed=0)
    for step in found:
        _, reward, *_ = plain.step(step["action"].numpy())
        assert float(step["next", "reward"]) == pytest.approx(reward, abs=1e-6)


def test_the_batched_worlds_roll_out() -> None:
    env = GymWrapper(TaskVectorEnv("half_cheetah_vel", 4, num_tasks=2, horizon=5, num_threads=1))
    assert env.batch_size == torch.Size([4])
    found = env.rollout(12, break_when_any_done=False)
    assert found["observation"].shape[:2] == (4, 12)
    assert found["next", "truncated"][:, 4].all()
    assert found["next", "done"].sum() == 4 * 2


def test_the_page_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "other_libraries.md"
    found = [code for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S) if "torchrl" in code]
    assert found
    exec(compile("".join(found), str(page), "exec"), {})
