"""What can be told of a run before it makes a folder: whether its environment can be built, or its data set
found, and its experience held."""

import math
import os

import torch

from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.fewshot import FewShotTasks


def require_playable(task: TaskDistribution, num_tasks: int, episodes: int, device: str) -> None:
    """Refuses a task whose environment cannot be built, and a batch that this machine could never hold.

    Raises:
        BadField: what is wrong with it.
    """
    if isinstance(task, FewShotTasks):
        task.require_ready()
        return
    task.make(1, 1, seed=0, physics="cpu", num_threads=1)  # a model of one's own, say, that no action moves
    numbers = 2 * task.spec.obs_dim + 2 * task.spec.action_dim + 4  # of a step, at least
    size, memory = 4 * numbers * num_tasks * episodes * task.horizon, physical_memory(device)
    if size > memory:
        raise BadField(
            f"num_tasks is {num_tasks}, episodes is {episodes} and horizon is {task.horizon}: a batch takes "
            f"{size / 2**30:.0f} GiB, this machine has {memory / 2**30:.0f}, use fewer"
        )


def physical_memory(device: str) -> float:
    """Bytes; infinite where the system does not tell."""
    if device != "cpu":
        return float(torch.cuda.mem_get_info(device)[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf
