"""A trained policy in one's own hands: ``agent = metarl.load(run)``, then one world at a time, or a batch of tasks.

trial = agent.trial(seed=0)  # one unknown task: a Gymnasium environment, a robot
obs, _ = env.reset()
while ...:
    action = trial.act(obs)
    obs, reward, terminated, truncated, _ = env.step(action)
    trial.observe(obs, reward, terminated, truncated)
    if terminated or truncated:
        trial.adapt()  # an inner step of a learner that has them; memory has adapted by now
        obs, _ = env.reset()
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.adapted import Adapted, Learned
from metarl.envs.api import TaskEnv
from metarl.envs.fields import BadField
from metarl.rollout import after, rollout
from metarl.runs.code import run_code
from metarl.runs.folder import load_experiment
from metarl.runs.snapshot import load_chosen
from metarl.runs.versions import recorded_commit
from metarl.seeds import stream
from metarl.separate_tests import Adapting
from metarl.trial import Trial
from metarl.types import remembers


def load(
    run: Path | str, *, checkpoint: str = "last", device: str | None = None, code: Path | str | None = None
) -> "TrainedAgent":
    """The policy of a run folder, from its newest usable checkpoint.

    Args:
        checkpoint: last, best (by validation), or the number of an iteration that the run keeps.
        device: where it acts and adapts; None: where it was trained.
        code: the Python file that defines the run's task, where it is none of this library's; it is run.

    Raises:
        ValueError: not a run folder, or one of another version, or of a device that this machine does not have.
        CheckpointError: it has no usable checkpoint.
    """
    run_code(None if code is None else Path(code))
    experiment = load_experiment(Path(run), device)
    progress = load_chosen(experiment, Path(run), checkpoint, lambda text: warnings.warn(text, stacklevel=4)).progress
    source = {
        "run": Path(run).resolve().name,
        "preset": experiment.preset,
        "seed": experiment.seed,
        "iteration": progress.iteration,
        "env_steps": progress.env_steps,
        "git_commit": recorded_commit(Path(run)),
    }
    return TrainedAgent(experiment.learner, progress.learner_state, experiment.task, experiment.device, source)


@dataclass(frozen=True)
class TrainedAgent(Learned):
    """A learner and what it has learned, ready to adapt."""

    def trial(self, *, seed: int = 0) -> Trial:
        """Begins with one unknown task in one world; ``seed`` is that of the action noise."""
        return Trial(self, seed)

    def adapt(
        self, env: TaskEnv, *, scales: Sequence[float] | None = None, episodes: int = 1, seed: int = 0
    ) -> Adapted:
        """Adapts to every task of ``env`` at once, as :func:`metarl.meta_test` does, on sampled actions.

        Args:
            env: any environment of this task distribution, its tasks set; all of its worlds are played in.
            scales: step size of each inner step, as a multiple of the learner's; None: its own steps at full size.
            episodes: that every world plays for each inner step, or that a learner that remembers is to remember.
            seed: of the action noise, with which :func:`metarl.meta_test` adapts to the same bits.

        Raises:
            BadField: episodes end at different times, so that no moment is the end of every world's last one.
        """
        learner = self.learner
        generator = stream(seed, "meta-test actions", device=str(env.device))
        actor = learner.actor(self.state, env.num_tasks)
        if not remembers(learner):
            for scale in [1.0] * learner.adapt_steps if scales is None else scales:
                batch, actor = rollout(env, learner.act, actor, episodes, generator)
                actor = learner.adapt(self.state, actor, learner.credit(self.state, batch), scale=scale)
            return Adapted(self, Adapting(actor), generator, num_tasks=env.num_tasks)
        if env.spec.terminates:
            raise BadField("env has episodes that end early, memory would go on: use trial(), or metarl.meta_test")
        batch, actor = rollout(env, learner.act, actor, episodes, generator, trials=True)
        return Adapted(self, Adapting(actor, after(batch, -1), batch.valid.any(-1)), generator, num_tasks=env.num_tasks)
