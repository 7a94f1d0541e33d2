"""Success by kind of task: the honest count, and Meta-World's beside it."""

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table

from metarl.evaluate import MetaTest
from metarl.metrics import solved_after, solved_at_end
from metarl.reports.published import PublishedSuccess
from metarl.reports.success import first_finished, first_finished_of_copies, success_record, success_tables
from metarl.types import TrajectoryBatch

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


def test_copies_of_a_memory_play_one_greedy_episode_again():
    """Trial 0 solves goal 1 after 100 steps: three copies end at 100, 200 and 300 and are all that counts; trial 1
    solves goal 0 after 300: ends at 300 and 600 solved, at 500 failed. Sampled trials are episodes one after the other:
    solved at 100, failed at 500 and at 600."""
    solved_after = np.array([[0, 300], [100, 0]])
    assert first_finished_of_copies(solved_after, horizon=HORIZON, parallel=2) == pytest.approx((1 + 2 / 3) / 2)
    assert first_finished_of_copies(solved_after, horizon=HORIZON, parallel=1) == pytest.approx(2 / 4)
    test = result()._replace(solved_after=torch.tensor([[[0, 300]], [[100, 0]]]))
    test = MetaTest(*(x[:2, :1, :2] for x in test))
    published = PublishedSuccess({}, meta_batch=2)
    both = {"RL2": test, "RL2, greedy": test}
    record = success_record(both, ["push-v3"] * 2, horizon=HORIZON, published=published, trials=True)
    assert record["RL2, greedy"]["all"]["first_finished"] == pytest.approx(5 / 6)
    apart = first_finished(solved_after, horizon=HORIZON, parallel=2)
    assert record["RL2"]["all"]["first_finished"] == apart == pytest.approx(1 / 3)
    inner = success_record(both, ["push-v3"] * 2, horizon=HORIZON, published=published)
    assert inner["RL2, greedy"]["all"]["first_finished"] == apart


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
    at_end = torch.zeros(4, 2, 4, dtype=torch.bool)
    at_end[0, 1, :3] = True  # lost again once
    at_end[1, 1, 0] = True
    share = torch.zeros(4, 2, 4, dtype=torch.float64)
    share[0, 1, :3], share[1, 1, 0] = 1.0, 0.02
    returns = torch.arange(32.0).view(4, 2, 4)
    return MetaTest(returns, solved_after, at_end, share)


def test_measures_by_kind_and_over_all_by_hand():
    record = success_record(
        {"MAML": result()},
        ["push-v3", "push-v3", "reach-v3", "reach-v3"],
        horizon=HORIZON,
        published=PublishedSuccess({"a paper": {"MAML": "32 %"}}, meta_batch=4),
    )["MAML"]
    assert list(record) == ["push-v3", "reach-v3", "all"]
    push, reach, everything = record.values()
    assert push["goals"] == 2
    assert [e["value"] for e in push["end"]] == [0.0, (3 + 1) / 8]
    assert push["any"] == [0.0, (4 + 1) / 8]
    assert push["last_50"] == pytest.approx([0.0, (3 * 1.0 + 0.02) / 8])
    assert push["steps_to_success"] == [None, (4 * 10 + 500) / 5]
    assert push["return"] == [np.mean([0, 1, 2, 3, 8, 9, 10, 11]), np.mean([4, 5, 6, 7, 12, 13, 14, 15])]
    assert (reach["any"], [e["value"] for e in reach["end"]]) == ([0.25, 0.0], [0.0, 0.0])
    assert reach["end"][1]["high"] == 0.0
    assert reach["steps_to_success"] == [1.0, None]
    assert [e["value"] for e in everything["end"]] == [0.0, 0.25]
    assert everything["any"] == [0.125, 0.3125]
    assert everything["iqm_end"]["value"] == pytest.approx(0.125)  # of 0, 0, .25 and .75: the mean of 0 and .25
    assert everything["steps_to_success"] == [1.0, (4 * 10 + 500) / 5]
    assert push["first_finished"] == 1.0  # two goals at a time; the first three to finish are goal 0's
    assert everything["first_finished"] == 0.5
    assert json.loads(json.dumps(record)) == record


def test_kinds_weigh_equally_whatever_their_number_of_goals():
    """Three goals of push at 1/2 on average, one of reach at 0: 1/4, where goals alike would say 3/8."""
    record = success_record({"a": result()}, ["p", "p", "p", "r"], horizon=HORIZON, published=None)["a"]
    assert record["p"]["end"][1]["value"] == pytest.approx((3 + 1 + 0) / 12)
    assert record["all"]["end"][1]["value"] == pytest.approx((3 + 1 + 0) / 12 / 2)
    assert record["all"]["any"][1] == pytest.approx((4 + 1 + 0) / 12 / 2)
    assert "first_finished" not in record["all"]


def shown(tables: list[Table]) -> str:
    console = Console(file=io.StringIO(), width=250)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_the_tables_say_how_each_column_counts():
    published = PublishedSuccess({"a paper": {"MAML": "32 %"}}, meta_batch=4)
    record = success_record({"MAML": result()}, ["push-v3"] * 4, horizon=HORIZON, published=published)
    note = published.caption("MAML", 4)
    tables = success_tables(record, own="MAML", when="1 step", note=note)
    assert len(tables) == 1, "one kind of task: a table of kinds would say it again"
    assert [str(column.header) for column in tables[0].columns][-1] == "first 3 to finish"
    for words in ("at the end: success at the last step", "a paper 32 %", "biased upwards", "after 10", "after 4"):
        assert words in str(tables[0].caption)
    assert "here after" not in published.caption("MAML", 10)
    plain = success_tables(
        success_record({"MAML": result()}, ["a"] * 4, horizon=9, published=None), own="MAML", when="x"
    )
    assert "first 3 to finish" not in shown(plain)


def test_every_policy_has_a_line_and_ours_a_table_by_environment():
    rows = {"MAML": result(), "MAML, greedy": result(), "untrained": result()}
    record = success_record(rows, ["p", "p", "r", "r"], horizon=HORIZON, published=None)
    tables = success_tables(record, own="MAML", when="1 step")
    assert [table.row_count for table in tables] == [3, 3, 3]
    assert "25.0%" in shown(tables[:1])
    assert [str(table.title).split(" by ")[0] for table in tables[1:]] == ["success of MAML", "success of MAML, greedy"]


def test_fault_29_names_of_policies_and_environments_are_text():
    record = success_record({"[/x]": result()}, ["[red]a", "[red]a", "[/b]", "[/b]"], horizon=HORIZON, published=None)
    text = shown(success_tables(record, own="[/x]", when="[bold]", note="[/note]"))
    for name in ("[/x]", "[red]a", "[/b]", "[bold]", "[/note]"):
        assert name in text


# --- by hand, from a batch ------------------------------------------------------------------------


def batch_of(success: list[int], *, ends: list[int], valid: list[int] | None = None) -> TrajectoryBatch:
    """One world of one task; ``ends`` are the steps (from 0) that end an episode."""
    flags = torch.tensor(success).bool().view(1, 1, -1)
    num_steps = flags.shape[-1]
    ended = torch.zeros(num_steps, dtype=torch.bool)
    ended[ends] = True
    clock, since = torch.zeros(num_steps, dtype=torch.int64), 0
    for t in range(num_steps):
        clock[t], since = since, 0 if ended[t] else since + 1
    blank = torch.zeros(1, 1, num_steps)
    return TrajectoryBatch(
        obs=blank.unsqueeze(-1),
        action=blank.unsqueeze(-1),
        reward=blank,
        terminated=torch.zeros_like(flags),
        truncated=ended.view(1, 1, -1),
        clock=clock.view(1, 1, -1),
        success=flags,
        valid=torch.tensor(valid).bool().view(1, 1, -1) if valid else torch.ones_like(flags),
        log_prob=blank,
        dist=None,
        next_obs=blank.unsqueeze(-1),
        advantage=blank,
        target=blank,
    )


def test_success_at_the_end_and_its_share_by_hand():
    """Episodes of 6 steps, a window of 4: success in steps 1 and 4 of the first, in the last two of the second."""
    batch = batch_of([*(0, 1, 0, 0, 1, 0), *(0, 0, 0, 0, 1, 1)], ends=[5, 11])
    at_end, share = solved_at_end(batch, 2, horizon=6, window=4)
    assert at_end.flatten().tolist() == [False, True]
    assert share.flatten().tolist() == [1 / 4, 2 / 4]
    assert solved_after(batch, 2).flatten().tolist() == [2, 5]
    assert solved_at_end(batch, 1, horizon=6, window=4)[1].shape == (1, 1, 1)
    assert solved_at_end(batch, 2, horizon=6)[1].flatten().tolist() == [2 / 6, 2 / 6]  # an episode has no 50 steps


def test_who_reached_a_goal_that_ends_the_episode_is_there_from_then_on():
    """Horizon 6, window 4 (steps 2 to 5): reached in step 1 of one episode, 3 of another; lost, without, in a third."""
    batch = batch_of([*(0, 1), *(0, 0, 1, 1), *(1, 1, 1, 0)], ends=[1, 5, 9])
    at_end, share = solved_at_end(batch, 3, horizon=6, window=4)
    assert at_end.flatten().tolist() == [True, True, False]
    assert share.flatten().tolist() == [4 / 4, (2 + 2) / 4, 1 / 4]


def test_steps_that_are_not_valid_solve_nothing_at_the_end():
    """The physics failed in the last step, which says success; the last valid one did not solve it."""
    batch = batch_of([0, 0, 0, 1], ends=[3], valid=[1, 1, 1, 0])
    at_end, share = solved_at_end(batch, 1, horizon=4)
    assert (at_end.item(), share.item()) == (False, 0.0)
    never = batch_of([1, 1], ends=[1], valid=[0, 0])
    assert [x.item() for x in solved_at_end(never, 1, horizon=2)] == [False, 0.0]
