"""How long a step of an exported policy takes in onnxruntime on one core, observing included: microseconds.

Untrained policies of the half-cheetah: a step costs the same before and after training. Torch's own step of the same
policy stands beside it. ``python tests/benchmarks/benchmark_export.py``
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import metarl
from metarl.deploy.runner import Policy, latency
from metarl.envs.registry import find_preset
from metarl.seeds import stream

STEPS = 1000
TASKS = find_preset("half_cheetah_dir", "v5")
LEARNERS = {
    "MAML, 100 x 100 units": metarl.MAML(metarl.GaussianMLP((100, 100))),
    "RL2, GRU of 128 units": metarl.RL2(metarl.RecurrentPolicy("gru", 128)),
    "RL2, LSTM of 128 units": metarl.RL2(metarl.RecurrentPolicy("lstm", 128)),
    f"RL2, attention of 128 units, steps 1 to {STEPS}": metarl.RL2(metarl.RecurrentPolicy("attention", 128)),
}


def in_torch(trial: metarl.Trial, steps: int) -> np.ndarray:
    obs, taken = np.zeros(TASKS.spec.obs_dim, np.float32), np.empty(steps)
    for index in range(steps):
        began = time.perf_counter()
        trial.act(obs, greedy=True)
        trial.observe(obs, 0.0, False, False)
        taken[index] = time.perf_counter() - began
    return taken


def main() -> None:
    torch.set_num_threads(1)
    print("| policy | median | 99 % at most | the same in torch, median |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, learner in LEARNERS.items():
            agent = metarl.TrainedAgent(learner, learner.init(TASKS.spec, stream(0, "parameters")), TASKS)
            policy = Policy(agent.trial().export(Path(folder) / "policy.onnx"))
            median, late = np.percentile(1e6 * latency(policy, STEPS), [50, 99])
            torchs = 1e6 * np.median(in_torch(agent.trial(), STEPS))
            print(f"| {name} | {median:.0f} | {late:.0f} | {torchs:.0f} |", flush=True)


if __name__ == "__main__":
    main()
