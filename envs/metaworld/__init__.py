"""Meta-World V3, batched: its 50 tasks as tensor functions over worlds, and its benchmarks as task distributions."""

from envs.metaworld import tasks  # noqa: F401 - registers the tasks
