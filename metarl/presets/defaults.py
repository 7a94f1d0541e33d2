"""What an experiment starts from where nobody has published or tuned one: it trains, and says so by its name."""

from dataclasses import replace
from typing import Any

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.gradient import GradientLearner
from metarl.algorithms.pearl import PEARL
from metarl.algorithms.rl2 import RL2
from metarl.algorithms.varibad import VariBAD
from metarl.envs.registry import TaskDistribution
from metarl.fewshot import FewShotTasks
from metarl.losses.elbo import ELBO
from metarl.networks.recurrent import RecurrentPolicy
from metarl.presets.pearls import SMALL
from metarl.runs.experiment import Experiment
from metarl.runs.supervised import FewShotExperiment

MANY = 400  # worlds: enough for the physics' threads, few enough for a laptop's memory


def default(task: TaskDistribution, learner: type[Any]) -> Experiment:
    """An untuned experiment named ``default``; tests during training are on at most as many tasks as there are."""
    if isinstance(task, FewShotTasks):
        return FewShotExperiment(task=task, learner=learner(), preset="default")
    tests = min(20, task.num_test_tasks or 20)
    if issubclass(learner, RL2):
        policy = RecurrentPolicy(memory="gru", memory_size=64, encoder_sizes=(64,))
        episodes = max(2, min(10, MANY // task.horizon))  # a trial of at least two episodes
        rl2 = RL2(policy=policy, gae_lambda=0.95, value_lambda=0.95, learning_rate=2e-3, epochs=8, minibatches=2)
        return Experiment(
            task=task, learner=rl2, preset="default", num_tasks=80, num_envs=1, episodes=episodes, eval_tasks=tests
        )
    if issubclass(learner, VariBAD):
        episodes = max(2, min(10, MANY // task.horizon))
        elbo = ELBO(belief_updates=5, elbo_prefixes=50, elbo_decodes=50, replay_episodes=2000)
        drawn = learner(elbo=elbo, epochs=8, clip=0.2)
        return Experiment(
            task=task, learner=drawn, preset="default", num_tasks=80, num_envs=1, episodes=episodes, eval_tasks=tests
        )
    if issubclass(learner, PEARL):
        brought = 8 * 4 * task.horizon  # to one slot, where all tasks of a meta-batch are the same
        pearl = replace(SMALL, num_slots=50, capacity=brought, warmup_steps=brought)
        return Experiment(
            task=task, learner=pearl, preset="default", num_tasks=8, num_envs=2, episodes=2, eval_tasks=tests
        )
    if issubclass(learner, ESMAML):
        return Experiment(task=task, learner=learner(pairs=10), preset="default", num_tasks=20, eval_tasks=tests)
    if issubclass(learner, GradientLearner):
        return Experiment(task=task, learner=learner(), preset="default", num_tasks=20, eval_tasks=tests)
    return Experiment(task=task, learner=learner(), preset="default", eval_tasks=tests)
