"""The compiled meta-gradient. In a process of its own: this one checks shapes at run time, which cannot be compiled."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from metarl.envs.small.navigation import Navigation
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import Gradient
from metarl.networks.mlp import GaussianMLP
from metarl.rollout import rollout
from update_checks import meta_update

task, found = Navigation(horizon=5), []
for compile in (False, True):
    learner = MAML(policy=GaussianMLP((8,)), outer=Gradient(0.1), compile=compile)
    env, generator = task.make(3, 4, seed=0), torch.Generator().manual_seed(0)
    state = learner.init(env.spec, generator)
    for _ in range(3):
        env.set_tasks(task.sample(3, generator))
        actor, batches = learner.actor(state, 3), []
        for step in range(2):
            batches.append(learner.credit(state, rollout(env, learner.act, actor, 1, generator)[0]))
            actor = learner.adapt(state, actor, batches[0])
        state, _ = meta_update(learner, state, batches)
    found.append(torch.cat([x.flatten() for x in state.meta.values()]))
assert torch.allclose(*found, atol=1e-5), (found[0] - found[1]).abs().max()
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "compiled again"
"""


@pytest.mark.slow
def test_three_compiled_updates_equal_the_plain_ones_and_compile_once():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=300)
