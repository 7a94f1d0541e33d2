"""``make bench``: an iteration of PEARL on a CPU, as its presets ``small`` train, and what a gradient step of it costs.

Sampling is both rounds of experience and the posterior between them; the update is the replay and its gradient steps.
"""

import statistics
from dataclasses import replace

import torch
from benchmark import measure

from metarl import presets
from metarl.algorithms.pearl import PEARL
from metarl.rollout import rollout
from metarl.runs.experiment import Experiment
from metarl.runs.process import prepare_process
from metarl.types import Experience

TURNS = 3


class PearlIteration:
    """One iteration, its parts callable one by one; the update begins from the same replay each time."""

    def __init__(self, experiment: Experiment) -> None:
        assert isinstance(experiment.learner, PEARL)
        self.experiment, self.learner = experiment, replace(experiment.learner, warmup_steps=0)
        self.generator = torch.Generator().manual_seed(0)
        self.env = experiment.make_env(experiment.num_tasks, experiment.num_envs, stream="resets")
        self.state = self.learner.init(self.env.spec, self.generator)
        for _ in range(3):
            self.sample()
            filling = replace(self.learner, gradient_steps=1)
            self.state, _ = filling.update(self.state, self.brought, self.generator)

    def sample(self) -> None:
        tasks = self.experiment.task.sample(self.env.num_tasks, self.generator)
        self.env.set_tasks(tasks)
        actor, batches = self.learner.actor(self.state, self.env.num_tasks), []
        for step in range(self.learner.adapt_steps + 1):
            batch, actor = rollout(self.env, self.learner.act, actor, self.experiment.episodes_per_env, self.generator)
            batches.append(batch)
            if step < self.learner.adapt_steps:
                actor = self.learner.adapt(self.state, actor, batch)
        self.brought = Experience(tasks, None, batches)

    def update(self) -> None:
        self.learner.update(self.state, self.brought, self.generator)

    @property
    def num_steps(self) -> int:
        return sum(batch.valid.numel() for batch in self.brought.batches)


def main() -> None:
    prepare_process(num_threads=0)
    print("PEARL, an iteration of the preset small: median [fastest, slowest turn] seconds")
    for task in ("half_circle", "half_cheetah_vel"):
        iteration = PearlIteration(presets.make(task, "pearl", "small"))
        seconds = measure({"sampling": iteration.sample, "update": iteration.update}, TURNS)
        total = [a + b for a, b in zip(seconds["sampling"], seconds["update"], strict=True)]
        sampling, update = (statistics.median(seconds[name]) for name in ("sampling", "update"))
        a_step = 1000 * update / iteration.learner.gradient_steps
        rate = f"{iteration.num_steps / sampling:,.0f} env steps/s"
        print(
            f"  {task:<18} {statistics.median(total):.2f} [{min(total):.2f}, {max(total):.2f}]: {sampling:.2f} "
            f"sampling ({rate}) + {update:.2f} update ({a_step:.1f} ms a gradient step)"
        )


if __name__ == "__main__":
    main()
