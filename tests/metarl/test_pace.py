"""How long a run will take: a short iteration costs a step what a whole one does, and what a run recorded counts."""

import pytest

from metarl.cli.study import tiny
from metarl.presets import make
from metarl.runs.pace import shortened
from metarl.runs.recorded import recorded_rate
from metarl.runs.status import clock
from metarl.runs.studies import steps_of_iteration


def test_the_short_iteration_keeps_worlds_and_cuts_episodes() -> None:
    short = shortened(make("ml10", "maml", "plus"))
    assert (short.num_tasks, short.num_envs, short.task.horizon) == (20, 10, 20)
    assert short.learner.outer.curvature_samples == 4_000
    chunked = shortened(make("ml10", "rl2", "plus"))
    assert (chunked.task.horizon, chunked.learner.chunk_steps, chunked.learner.chunk_overlap) == (40, 20, 4)
    trials = shortened(make("bandit", "rl2", "n100_k5"))
    assert (trials.num_tasks, trials.episodes, trials.task.horizon) == (80, 100, 1)
    point = make("navigation", "maml", "maml2017")
    assert shortened(point).learner.policy == point.learner.policy
    pairs = make("navigation", "es_maml")  # of policies, among which worlds are divided
    assert (shortened(pairs).num_envs, shortened(pairs).episodes, tiny(pairs).num_envs) == (10, 10, 10)
    replaying, small = make("ant_dir", "pearl", "pearl"), shortened(make("ant_dir", "pearl", "pearl"))
    assert small.learner.warmup_steps == 0
    of_a_step = [e.learner.gradient_steps / steps_of_iteration(e) for e in (replaying, small)]
    assert of_a_step[1] == pytest.approx(of_a_step[0], rel=0.3)
    believing = [make("half_cheetah_vel", "varibad", "field"), shortened(make("half_cheetah_vel", "varibad", "field"))]
    of_a_step = [e.learner.elbo.belief_updates / steps_of_iteration(e) for e in believing]
    assert of_a_step[1] == pytest.approx(of_a_step[0], rel=0.3)


def test_the_recorded_pace_is_the_median_of_recent_iterations() -> None:
    tag = "time/env_steps_per_second"
    assert recorded_rate([{tag: "1"}] * 30 + [{tag: f"{k}"} for k in range(20)]) == 9.5
    assert recorded_rate([{"iteration": "0"}]) is None


def test_durations_are_said_for_people() -> None:
    assert [clock(seconds) for seconds in (40.0, 720.0, 12600.0)] == ["40 s", "12 min", "3.5 h"]
