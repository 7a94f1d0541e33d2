"""A command as jobs of a cluster, through submitit: started again by itself where the cluster takes its machine away.

What is submitted must go on where it stopped when it is given again: ``metarl train --name X --start-or-resume``,
``metarl tune``, a file in ``experiments/``.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metarl.envs.fields import require

PATIENCE = 120  # seconds for a last checkpoint; the cluster has to give them


@dataclass
class Command:
    """What a job runs; a preempted one is submitted anew, to go on."""

    words: tuple[str, ...]
    process: Any = field(default=None, repr=False)

    def __call__(self) -> int:
        """Runs it to its end.

        Raises:
            RuntimeError: it failed.
        """
        self.process = subprocess.Popen(self.words)
        code = int(self.process.wait())
        if code:
            raise RuntimeError(f"{' '.join(self.words)} ended with {code}")
        return code

    def checkpoint(self, *_: Any) -> Any:
        """Called by submitit before the machine is taken away: the command writes its checkpoint and ends."""
        import submitit

        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
        return submitit.helpers.DelayedSubmission(Command(self.words))


@dataclass(frozen=True)
class Cluster:
    """Where jobs run, and what each is given."""

    cluster: Literal["slurm", "local", "debug"] = "slurm"
    """slurm; local: processes of this machine; debug: one after the other in this process."""
    jobs: int = 1
    """The command is submitted so many times: workers of a search, which share the work."""
    job_hours: float = 24.0
    """Time limit of a job; one that reaches it is submitted anew, as is one that is preempted."""
    cpus: int = 4
    """CPU cores of a job."""
    gpus: int = 0
    """GPUs of a job."""
    memory_gb: int = 16
    """Memory of a job."""
    partition: str | None = None
    """Of SLURM, where it needs one."""
    logs: Path = Path("jobs")
    """Folder of what jobs print."""

    def __post_init__(self) -> None:
        require(self, "jobs", "cpus", "memory_gb", at_least=1)
        require(self, "gpus", at_least=0)
        require(self, "job_hours", above=0)


def words_of(command: Sequence[str]) -> tuple[str, ...]:
    """The command line of a job, with this Python.

    Raises:
        ValueError: neither ``metarl ...`` nor ``python FILE ...``.
    """
    if command[:1] == ["metarl"]:
        return (sys.executable, "-m", *command)
    if command[:1] == ["python"]:
        return (sys.executable, *command[1:])
    raise ValueError(
        "nothing to submit: metarl submit --jobs 4 -- metarl tune navigation, or -- python experiments/rl2_bandits.py"
    )


def submit(command: Sequence[str], where: Cluster) -> list[Any]:
    """Submits a command; returns submitit's jobs.

    Raises:
        ValueError: submitit is not installed, or finds no such cluster here.
    """
    words = words_of(list(command))
    try:
        import submitit
    except ImportError as error:
        raise ValueError("jobs need submitit: pip install 'metarl-toolkit[cluster]'") from error
    try:
        executor = submitit.AutoExecutor(folder=where.logs, cluster=where.cluster)
    except RuntimeError as error:
        raise ValueError(f"cluster is {where.cluster!r}, which is not here ({error}): use local") from error
    partition = {"slurm_partition": where.partition} if where.partition else {}
    executor.update_parameters(
        name="metarl",
        timeout_min=max(1, round(60 * where.job_hours)),
        cpus_per_task=where.cpus,
        gpus_per_node=where.gpus,
        mem_gb=where.memory_gb,
        slurm_signal_delay_s=PATIENCE,
        slurm_array_parallelism=where.jobs,
        **partition,
    )
    jobs: list[Any] = executor.submit_array([Command(words) for _ in range(where.jobs)]) if where.jobs > 1 else []
    return jobs or [executor.submit(Command(words))]
