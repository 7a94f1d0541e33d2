"""How much of an inner gradient step is signal: the cosine of two estimates of it, on a task of two directions.

    python experiments/inner_gradient_noise.py [--task ant_dir] [--task-preset maml2017] [--episodes 20]

Half of the tasks are +1 and half -1; each gets one inner step of an untrained policy from episodes of its own. The
table has the mean cosine between steps of the same task, for several horizons of credit, with the standard deviation
over policies. An estimate from n samples has a cosine of about n signal / (n signal + noise).
"""

from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from metarl import MAML, GaussianMLP
from metarl.cli.parse import parse
from metarl.envs.fields import require
from metarl.envs.registry import find_preset
from metarl.rollout import rollout
from metarl.runs.process import errors_in_one_sentence, prepare_process
from metarl.seeds import stream

CREDIT = ((0.99, 1.0), (0.99, 0.95), (0.95, 0.8), (0.9, 0.6))  # discount, lambda


@dataclass(frozen=True)
class Options:
    task: str = "ant_dir"
    """Task distribution whose parameter is a direction, +1 or -1."""
    task_preset: str = "maml2017"
    """Definition of the task (metarl list shows them)."""
    episodes: int = 20
    """Episodes that an inner step sees."""
    num_tasks: int = 40
    """Inner steps that are compared, half of them in each direction."""
    seeds: int = 3
    """Untrained policies."""
    num_threads: int = 1
    """CPU threads."""

    def __post_init__(self) -> None:
        require(self, "episodes", "seeds", "num_threads", at_least=1)
        require(self, "num_tasks", at_least=4)


def cosines(options: Options) -> torch.Tensor:
    """Mean cosine between inner steps of the same task [seed, credit]."""
    learner = MAML(policy=GaussianMLP((100, 100), "tanh"))
    env = find_preset(options.task, options.task_preset).make(options.num_tasks, options.episodes, seed=0)
    direction = torch.ones(options.num_tasks)
    direction[1::2] = -1
    env.set_tasks(direction)
    same = (direction[:, None] == direction) & ~torch.eye(options.num_tasks, dtype=torch.bool)
    found = torch.zeros(options.seeds, len(CREDIT))
    for seed in range(options.seeds):
        state = learner.init(env.spec, stream(seed, "parameters"))
        theta = learner.actor(state, options.num_tasks)
        batch, _ = rollout(env, learner.act, theta, 1, stream(seed, "actions"))
        for column, (discount, gae_lambda) in enumerate(CREDIT):
            variant = replace(learner, discount=discount, gae_lambda=gae_lambda)
            phi = variant.adapt(state, theta, variant.credit(state, batch))
            step = torch.cat([(phi[name] - theta[name]).flatten(1) for name in theta], dim=1)
            step = step / step.norm(dim=1, keepdim=True)
            found[seed, column] = (step @ step.T)[same].mean()
    return found


def main() -> None:
    with errors_in_one_sentence():
        options: Options = parse(Options, None, description=__doc__)
        prepare_process(options.num_threads)
        found = cosines(options)
    spread = found.std(0) if options.seeds > 1 else torch.zeros(len(CREDIT))
    title = f"{options.task} ({options.task_preset}), {options.episodes} episodes a step, {options.seeds} policies"
    table = Table(title=title)
    for heading in ("discount", "lambda", "cosine of two estimates"):
        table.add_column(heading, justify="right")
    for (discount, gae_lambda), mean, deviation in zip(CREDIT, found.mean(0), spread, strict=True):
        table.add_row(f"{discount}", f"{gae_lambda}", f"{mean:.3f} ± {deviation:.3f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
