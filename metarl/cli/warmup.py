"""``metarl warmup``: a GPU's kernels before they are needed."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from metarl.envs.fields import require
from metarl.envs.registry import find_preset
from metarl.envs.warmup import progress_line, warm_up


@dataclass(frozen=True)
class Warmup:
    """Compile the GPU kernels of tasks before they are needed, side by side: for the GPU here, or one elsewhere."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """Task distributions (metarl list shows them)."""
    device: str = "cuda"
    """Whose kernels: cuda, cuda:1 ...; cpu: those of Warp's CPU device."""
    arch: str = ""
    """Architecture of a card that is not here, such as sm_90 of an H100. Its kernels go to a folder of their own, for
    WARP_CACHE_PATH where the card is."""
    deterministic: bool = False
    """Those of runs with --deterministic."""
    physics: str = "warp"
    """Those of runs with this --physics: warp, warp-sorted or warp-culled."""
    workers: int = 0
    """Processes; 0: as many as cores."""
    out: Path | None = None
    """Folder to write to, in place of Warp's cache or the card's own."""
    code: Path | None = None
    """Python file that defines a task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        require(self, "workers", at_least=0)
        if not self.names:
            raise ValueError("no task is named: metarl warmup TASK ..., those of metarl list that have physics")
        tasks = [find_preset(name) for name in self.names]
        names = ("device", "arch", "deterministic", "physics", "workers", "out")
        options = {name: getattr(self, name) for name in names}
        try:
            folder, kernels, new = warm_up(tasks, **options, say=progress_line(sys.stdout))
        except RuntimeError as error:
            raise ValueError(f"{error}; what is compiled stays, and the same command goes on from there") from error
        done = f"compiled {new} of {kernels} kernels" if new else f"all {kernels} kernels were there already"
        console.print(f"{done}: {folder}" + (f"; where the card is, set WARP_CACHE_PATH={folder}" if self.arch else ""))
