"""A meta-update from batches alone, as tests of single updates make it."""

from typing import Any

import torch

from metarl.types import Experience, MetaLearner, Metrics, TrajectoryBatch


def meta_update(
    learner: MetaLearner, state: Any, batches: list[TrajectoryBatch], *, explorer: Any = None, seed: int = 0
) -> tuple[Any, Metrics]:
    """Of tasks without parameters; draws come from ``seed``."""
    task = torch.zeros(len(batches[0].reward), 0)
    return learner.update(state, Experience(task, explorer, batches), torch.Generator().manual_seed(seed))
