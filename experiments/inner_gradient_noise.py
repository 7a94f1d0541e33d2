"""How much of an inner gradient step is signal: the cosine of two estimates of it, on a task of two directions.

    python experiments/inner_gradient_noise.py [--task ant_dir] [--preset maml2017] [--episodes 20]

Each of ``--num-tasks`` tasks, half of them +1 and half -1, gets one inner step of an untrained policy from episodes of
its own; the table has the mean cosine between steps of the same task, for several horizons of credit, with the standard
deviation over ``--seeds`` policies. Noise of n samples leaves a cosine of about n signal / (n signal + noise).
"""

from dataclasses import replace

import torch
import tyro
from rich.console import Console
from rich.table import Table

from metarl import MAML, GaussianMLP
from metarl.envs.registry import find_preset
from metarl.rollout import rollout
from metarl.runs.process import prepare_process
from metarl.seeds import stream

CREDIT = ((0.99, 1.0), (0.99, 0.95), (0.95, 0.8), (0.9, 0.6))  # discount, lambda


def main(
    task: str = "ant_dir", preset: str = "maml2017", episodes: int = 20, num_tasks: int = 40, seeds: int = 3
) -> None:
    prepare_process(num_threads=1)
    learner = MAML(policy=GaussianMLP((100, 100), "tanh"))
    env = find_preset(task, preset).make(num_tasks, episodes, seed=0)
    direction = torch.ones(num_tasks)
    direction[1::2] = -1
    env.set_tasks(direction)
    same = (direction[:, None] == direction) & ~torch.eye(num_tasks, dtype=torch.bool)
    cosines = torch.zeros(seeds, len(CREDIT))
    for seed in range(seeds):
        state = learner.init(env.spec, stream(seed, "parameters"))
        theta = learner.actor(state, num_tasks)
        batch, _ = rollout(env, learner.act, theta, 1, stream(seed, "actions"))
        for column, (discount, gae_lambda) in enumerate(CREDIT):
            variant = replace(learner, discount=discount, gae_lambda=gae_lambda)
            phi = variant.adapt(state, theta, variant.credit(state, batch))
            step = torch.cat([(phi[name] - theta[name]).flatten(1) for name in theta], dim=1)
            step = step / step.norm(dim=1, keepdim=True)
            cosines[seed, column] = (step @ step.T)[same].mean()
    table = Table(title=f"{task} ({preset}), {episodes} episodes a step, {seeds} policies")
    for heading in ("discount", "lambda", "cosine of two estimates"):
        table.add_column(heading, justify="right")
    for (discount, gae_lambda), mean, std in zip(CREDIT, cosines.mean(0), cosines.std(0), strict=True):
        table.add_row(f"{discount}", f"{gae_lambda}", f"{mean:.3f} ± {std:.3f}")
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
