"""``metarl probe``: what a learner inferred of its task."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from metarl.reports.probe import ProbePlan, probe_run


@dataclass(frozen=True)
class Probe:
    """Fit a linear probe from memory, or from adapted parameters, to the task parameter, over steps or inner steps."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    plan: tyro.conf.OmitArgPrefixes[ProbePlan]
    checkpoint: str = "last"
    """Which state to probe: last, best, by validation; or the number of an iteration that the run keeps."""
    device: str | None = None
    """Where to act and adapt, with the physics engine that fits; by default where the run was trained."""
    out: Path | None = None
    """Folder to write probe.json and probe.png to; by default the run's own."""
    code: Path | None = None
    """Python file that defines the run's task, learner or policy, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        probe_run(self.run, self.plan, console=console, checkpoint=self.checkpoint, device=self.device, out=self.out)
