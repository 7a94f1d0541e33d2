"""Success by kind of task: the honest count, and Meta-World's beside it."""

import numpy as np
import pytest
import torch

from metarl.evaluate import MetaTest
from metarl.reports.published import PublishedSuccess
from metarl.reports.success import first_finished, success_record, success_tables

HORIZON = 500


def test_a_policy_that_solves_one_goal_in_four_can_read_a_hundred_percent():
    """Four goals side by side, one solved after 60 steps in each of its episodes: its episodes finish first."""
    solved_after = np.zeros((4, 3), dtype=int)
    solved_after[2] = 60
    assert (solved_after > 0).mean() == 0.25
    assert first_finished(solved_after, horizon=HORIZON, parallel=4) == 1.0
    assert first_finished(solved_after, horizon=HORIZON, parallel=1) == 0.25  # nothing to overtake


def test_the_first_three_to_finish_by_hand():
    """Goal 0 ends at 400 and 450, goal 1 at 500 (failed): 2 of the first 3 solved; the second pair fails at once."""
    solved_after = np.array([[400, 50, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert first_finished(solved_after, horizon=HORIZON, parallel=2) == pytest.approx((2 / 3 + 0) / 2)


def test_the_count_is_the_published_loops():
    """Against a simulation of the parallel worlds, step by step, on random episodes."""
    draws = np.random.default_rng(0)
    for _ in range(20):
        solved_after = draws.integers(1, HORIZON, size=(5, 3)) * (draws.random((5, 3)) < 0.4)
        finished: list[bool] = []
        episode, clock = np.zeros(5, dtype=int), np.zeros(5, dtype=int)
        while len(finished) < 3:
            clock += 1
            for world in range(5):
                after = solved_after[world, min(episode[world], 2)]
                if clock[world] == (after or HORIZON):
                    finished.append(after > 0)
                    episode[world], clock[world] = episode[world] + 1, 0
        expected = np.mean(finished[:3])
        assert first_finished(solved_after, horizon=HORIZON, parallel=5) == pytest.approx(expected)


def result() -> MetaTest:
    """Two kinds of two goals, before and after adaptation, four episodes each."""
    solved_after = torch.zeros(4, 2, 4, dtype=torch.int64)
    solved_after[0, 1] = 10  # always
    solved_after[1, 1, 0] = 500  # in one of four, at its last step
    solved_after[3, 0, :2] = 1
    returns = torch.arange(32.0).view(4, 2, 4)
    return MetaTest(returns, solved_after)


def test_rates_by_kind_and_over_all_by_hand():
    record = success_record(
        {"MAML": result()},
        ["push-v3", "push-v3", "reach-v3", "reach-v3"],
        horizon=HORIZON,
        published=PublishedSuccess({"a paper": {"MAML": "32 %"}}, meta_batch=4),
    )["MAML"]
    assert list(record) == ["push-v3", "reach-v3", "all"]
    push, reach, everything = record.values()
    assert (push["goals"], push["before"], push["after"]["value"]) == (2, 0.0, 0.625)
    assert (reach["before"], reach["after"]["value"], reach["after"]["high"]) == (0.25, 0.0, 0.0)
    assert everything["before"] == 0.125
    assert everything["after"]["value"] == 0.3125
    assert everything["iqm_after"]["value"] == pytest.approx(0.125)  # of 0, 0, .25 and 1: the mean of 0 and .25
    assert push["return_after"] == pytest.approx(np.mean([4, 5, 6, 7, 12, 13, 14, 15]))
    assert push["first_finished"] == 1.0  # two goals at a time; the first three to finish are goal 0's
    assert everything["first_finished"] == 0.5


def test_the_table_says_how_each_column_counts():
    published = PublishedSuccess({"a paper": {"MAML": "32 %"}}, meta_batch=4)
    record = success_record({"MAML": result()}, ["push-v3"] * 4, horizon=HORIZON, published=published)
    (table,) = success_tables(record, published, "1 step")
    assert [str(column.header) for column in table.columns][-1] == "first 3 to finish"
    assert "a paper 32 %" in str(table.caption)
    assert "biased upwards" in str(table.caption)
    (plain,) = success_tables(success_record({"MAML": result()}, ["a"] * 4, horizon=9, published=None), None, "x")
    assert plain.caption is None
