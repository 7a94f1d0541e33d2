"""``metarl export``: adapt in simulation, then write a policy that runs without torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console

from metarl.agent import load
from metarl.deploy.simulate import adapt
from metarl.envs.fields import BadField, require, require_numbers
from metarl.evaluate import held_out_tasks
from metarl.runs.folder import load_experiment
from metarl.seeds import stream_seed
from metarl.types import remembers


@dataclass(frozen=True)
class Export:
    """Adapt a run's policy to one task in simulation, and write it to a file that runs without torch."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path = Path("policy.onnx")
    """File to write: ONNX (.onnx), torch.export (.pt2), or the parameters alone (.safetensors)."""
    task: int = 0
    """Which held-out task to adapt to, as metarl video counts them."""
    parameter: tuple[float, ...] = ()
    """Numbers that define another task to adapt to, in place of a held-out one."""
    adapt_episodes: int | None = None
    """Episodes for each inner step, or episodes to remember; by default as in training; 0: do not adapt, a policy with
    memory will where it is used."""
    seed: int = 0
    """Seed of action and reset noise."""
    benchmark: bool = False
    """Say how long a step of the written policy takes on one core, of an ONNX file."""
    code: Path | None = None
    """Python file that defines the run's task, where it is none of this library's; it is run."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "task", "seed", at_least=0)
        if self.adapt_episodes is not None:
            require(self, "adapt_episodes", at_least=0)

    def __call__(self, console: Console) -> None:
        if self.benchmark and self.out.suffix != ".onnx":
            raise BadField(f"benchmark is of ONNX files: {self.out.name} is none")
        experiment, agent = load_experiment(self.run, "cpu"), load(self.run, device="cpu")
        learner, episodes = experiment.learner, self.adapt_episodes
        if episodes is None:
            episodes = max(1, experiment.episodes_per_env - 1) if remembers(learner) else experiment.episodes
        tasks = held_out_tasks(experiment.task, experiment.eval_tasks)
        if self.task >= len(tasks):
            raise BadField(f"task is {self.task}: use 0 to {len(tasks) - 1}, the held-out tasks of this run")
        parameter = tasks[self.task]
        if self.parameter:
            if len(self.parameter) != parameter.numel():
                raise BadField(
                    f"parameter has {len(self.parameter)} numbers: {experiment.task.name} has {parameter.numel()}"
                )
            parameter = torch.tensor(self.parameter, dtype=parameter.dtype).view_as(parameter)
        env = experiment.task.make(1, 1, seed=stream_seed(self.seed, "export resets"))
        env.set_tasks(parameter[None])
        trial = agent.trial(seed=self.seed)
        inner_steps = 1 if remembers(learner) else learner.adapt_steps
        returns = adapt(trial, env, episodes=episodes, inner_steps=inner_steps)
        try:
            path = trial.export(self.out)
        except ImportError as error:  # its sentence names the extra to install
            raise ValueError(str(error)) from error
        words = experiment.task.in_words(parameter)
        console.print(f"wrote {path}: {experiment.task.name}{words and f', {words}'}")
        if returns:
            each = f", for each of {inner_steps} inner steps" if inner_steps > 1 else ""
            console.print(
                f"adapted to {episodes} episodes{each}; the first returned {returns[0]:.4g}, the last {returns[-1]:.4g}"
            )
        if self.benchmark:
            from metarl.deploy.runner import Policy, latency

            median, late = np.percentile(1e6 * latency(Policy(path)), [50, 99])
            console.print(f"a step takes {median:.0f} us (median), 99 % at most {late:.0f} us, on one core")
