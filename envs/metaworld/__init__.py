"""Meta-World V3, batched: its 50 tasks as tensor functions over worlds, and its benchmarks as task distributions."""

from metarl.envs.metaworld import tasks  # noqa: F401 - registers the tasks, before anything counts them
from metarl.envs.metaworld.benchmarks import ML1, ML10, ML25, ML45, MT1, MT10, MT25, MT50, MetaWorld

__all__ = ["ML1", "ML10", "ML25", "ML45", "MT1", "MT10", "MT25", "MT50", "MetaWorld"]
