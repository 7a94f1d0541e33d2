"""``metarl evaluate``: a run on held-out tasks, as it is or under perturbations."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from metarl.envs.fields import BadField
from metarl.reports.evaluate_run import Protocol, evaluate_run
from metarl.reports.robustness import evaluate_perturbed


@dataclass(frozen=True)
class Evaluate:
    """Test a run on held-out tasks as it adapts, by inner steps or episodes, beside what it is to be compared with."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    protocol: tyro.conf.OmitArgPrefixes[Protocol]
    pretrain_iterations: int | None = None
    """Iterations of the comparison trained on all tasks jointly without adapting; by default for as many environment
    steps as the run took, and none where there are reference agents; 0: leave it out."""
    checkpoint: str = "last"
    """Which state to test: last, the headline; best, by validation (metarl train --validation-interval); or the number
    of an iteration that the run keeps."""
    device: str | None = None
    """Where to test, with the physics engine that fits; by default where the run was trained."""
    out: Path | None = None
    """Folder to write the evaluation to; by default the run's own."""
    full: bool = False
    """Show spread over tasks and interquartile means, too; evaluation.json always has them."""
    perturb: str = ""
    """Test under perturbations that training never saw in place of beside comparisons, each at several strengths: noise
    and delay of actions, mass, friction, sensor noise; several with commas."""
    strengths: tuple[float, ...] = ()
    """Strengths of a single perturbation; by default each one's own. 0 is the task as it is."""
    code: Path | None = None
    """Python file that defines the run's task, learner or policy, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        if self.strengths and not self.perturb:
            raise BadField(f"strengths is {self.strengths}: of which perturbation, say it with --perturb")
        if self.perturb:
            evaluate_perturbed(
                self.run,
                self.protocol,
                perturb=self.perturb,
                strengths=self.strengths,
                console=console,
                device=self.device,
                out=self.out,
                checkpoint=self.checkpoint,
            )
            return
        evaluate_run(
            self.run,
            self.protocol,
            pretrain_iterations=self.pretrain_iterations,
            console=console,
            device=self.device,
            out=self.out,
            full=self.full,
            checkpoint=self.checkpoint,
        )
