"""The field: every learner on the same tasks, a setting each, to compare at equal environment steps and equal time.

``field`` is ours, of RL², VariBAD, MAML and ProMP: a learner's setting is the same on all MuJoCo tasks and not tuned to
one of them. ``hyper`` is RL²'s ``field`` with a recurrent hypernetwork in the place of its policy, and half its step
size: memory changes all weights of a layer at once. PEARL has ``small`` (:mod:`metarl.presets.pearls`), with fewer
environment steps and many gradient steps for each. On GridNavi RL² and VariBAD have their ``tuned``.

RL²'s ``amago`` is a transformer of AMAGO's size (Grigsby et al. 2024: 3 layers, 320 units, 256 steps, step size 5e-4,
trials of 3 episodes on ML45) trained by RL²'s on-policy PPO; AMAGO's own learner is off-policy and is not here.
"""

from dataclasses import replace

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO
from metarl.algorithms.promp import ProMP
from metarl.algorithms.rl2 import RL2
from metarl.envs.registry import TaskDistribution, find_preset
from metarl.networks.hyper import HyperPolicy
from metarl.networks.mlp import MLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.presets.grid_navi import RL2_PRESETS as GRID_RL2
from metarl.presets.metaworld import ML45
from metarl.presets.trials import believing, two_episodes
from metarl.runs.experiment import Experiment
from metarl.types import MetaLearner

HYPER = HyperPolicy(memory="gru", memory_size=64, encoder_sizes=(64,), code_size=25, hidden_sizes=(32,))
TRIALS: RL2 = two_episodes("half_cheetah_vel", "promp", trials=80).learner
VELOCITY = find_preset("half_cheetah_vel", "promp")
LEARNERS: dict[str, MetaLearner] = {
    "rl2": TRIALS,
    "hyper": replace(TRIALS, policy=HYPER, learning_rate=1e-3),
    "varibad": believing(VELOCITY, epochs=8, minibatches=4, trials=80, iterations=200, tuned=True).learner,
    "maml": MAML(policy=MLP((64, 64)), outer=TRPO(max_kl=0.02), inner_lr=0.1, gae_lambda=0.95),
    "promp": ProMP(
        policy=MLP((64, 64)), outer=PPO(learning_rate=1e-3, epochs=5, clip=0.3), inner_lr=0.1, gae_lambda=0.95
    ),
}


def on(task: TaskDistribution, learner: MetaLearner, *, steps: float, trial: int, trials: int) -> Experiment:
    """So many environment steps, by a memory learner in trials of so many episodes, so many an iteration; by an inner
    step as many episodes before it and after, of a quarter of the tasks."""
    tests = min(40, task.num_test_tasks or 40)
    tasks, worlds, episodes = (trials, 1, trial) if learner.adapt_steps == 0 else (trials // 4, 10, 10)
    per_iteration = (1 + learner.adapt_steps) * tasks * episodes * task.horizon
    return Experiment(
        task=task,
        learner=learner,
        num_tasks=tasks,
        num_envs=worlds,
        episodes=episodes,
        iterations=round(steps / per_iteration),
        eval_interval=25,
        eval_tasks=tests,
    )


SIZES = {
    "half_cheetah_vel": (VELOCITY, 6.4e6, 2, 80),
    "half_cheetah_dir": (find_preset("half_cheetah_dir", "promp"), 6.4e6, 2, 80),
    "ant_dir": (find_preset("ant_dir", "pearl"), 6.4e6, 2, 80),
    "walker2d_rand_params": (find_preset("walker2d_rand_params", "pearl"), 6.4e6, 2, 80),
    "half_circle": (find_preset("half_circle", "pearl"), 3.2e6, 4, 200),
}
"""Definition of the task, environment steps, episodes of a trial, trials an iteration."""

FIELD = {
    (task, name): on(definition, learner, steps=steps, trial=trial, trials=trials)
    for task, (definition, steps, trial, trials) in SIZES.items()
    for name, learner in LEARNERS.items()
}
GRID = GRID_RL2["tuned"]
GRID_HYPER = replace(GRID, learner=replace(GRID.learner, policy=HYPER, learning_rate=1e-3))
GRID_STEPS = GRID.iterations * GRID.num_tasks * GRID.episodes * GRID.task.horizon
AMAGO = Experiment(
    task=ML45,
    learner=replace(
        TRIALS,
        policy=RecurrentPolicy(
            memory="transformer", memory_size=320, memory_layers=3, memory_heads=8, memory_window=256, memory_gate="sum"
        ),
        learning_rate=5e-4,
    ),
    num_tasks=45,
    num_envs=1,
    episodes=3,
    iterations=4444,
    eval_tasks=45,
)

PRESETS = (
    *({"hyper" if name == "hyper" else "field": experiment} for (_, name), experiment in FIELD.items()),
    {"hyper": GRID_HYPER},
    *({"field": on(GRID.task, LEARNERS[name], steps=GRID_STEPS, trial=4, trials=80)} for name in ("maml", "promp")),
    {"amago": AMAGO},
)
