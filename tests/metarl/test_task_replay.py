"""The replay of each task: a ring, no task's transitions in another's slot, none of tasks that were not trained on."""

import pytest
import torch
from pearl_checks import SPEC, experience
from torch import Tensor

from metarl.algorithms import task_replay
from metarl.algorithms.task_replay import Replay, add, draw_any, draw_recent, draw_slots, empty, place, step_of
from metarl.envs.fields import BadField

CPU = torch.device("cpu")


def visit(
    replay: Replay, tasks: list[float], update: int, *, inferring: int = 1, rounds: int = 1
) -> tuple[Replay, Tensor]:
    """Tasks whose transitions are paid the task's own parameter."""
    replay, slot = place(replay, torch.tensor(tasks), update)
    return add(replay, slot, [experience(tasks)] * rounds, inferring), slot


def rewards(replay: Replay, slot: int) -> list[float]:
    """Of all that a slot holds."""
    held = min(int(replay.added[slot]), replay.rows.shape[1])
    return step_of(replay.rows[slot, :held], 2).reward.tolist()


def test_a_task_finds_its_slot_again_and_a_new_one_takes_the_oldest():
    replay, first = visit(empty(SPEC, 3, 24, CPU), [5.0, 7.0], 1)
    replay, second = visit(replay, [7.0, 9.0], 2)
    assert second[0] == first[1], "a known task did not find its slot"
    assert set(replay.task.flatten().tolist()) == {5.0, 7.0, 9.0}
    assert rewards(replay, int(first[1])) == [7.0] * 12
    replay, third = visit(replay, [11.0], 3)
    assert third[0] == first[0], "the task met longest ago did not make room"
    assert rewards(replay, int(third[0])) == [11.0] * 6
    assert set(replay.task.flatten().tolist()) == {11.0, 7.0, 9.0}


def test_equal_tasks_of_a_meta_batch_share_a_slot():
    replay, slot = visit(empty(SPEC, 2, 24, CPU), [-1.0, 1.0, -1.0], 1)
    assert slot[0] == slot[2] != slot[1]
    assert rewards(replay, int(slot[0])) == [-1.0] * 12
    assert rewards(replay, int(slot[1])) == [1.0] * 6


def test_a_ring_keeps_the_newest():
    replay = empty(SPEC, 1, 8, CPU)
    for update in range(3):
        replay, slot = place(replay, torch.tensor([3.0]), update + 1)
        replay = add(replay, slot, [experience([float(update)])], 1)
    # 6 + 6 + 6 into 8 places: 0 0 0 0 0 0 1 1 | 1 1 1 1 2 2 2 2 | 2 2
    assert rewards(replay, 0) == [2.0, 2.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert replay.added.item() == 18
    with pytest.raises(BadField, match=r"capacity is 8: .*\(12 steps\)"):
        add(replay, slot, [experience([1.0])] * 2, 1)


def test_steps_that_are_not_valid_are_left_out():
    valid = torch.ones(1, 2, 3, dtype=torch.bool)
    valid[0, 0, 1:] = False
    batch = experience([1.0], valid=valid)
    replay, slot = place(empty(SPEC, 1, 8, CPU), torch.tensor([1.0]), 1)
    replay = add(replay, slot, [batch], 1)
    assert replay.added.item() == 4
    torch.testing.assert_close(step_of(replay.rows[0, :4], 2).obs, batch.obs[valid])
    torch.testing.assert_close(step_of(replay.rows[0, :4], 2).next_obs, batch.next_obs[valid])


def test_however_tasks_come_and_go_no_transition_is_another_tasks():
    generator = torch.Generator().manual_seed(0)
    replay = empty(SPEC, 5, 48, CPU)
    for update in range(30):
        tasks = torch.randint(9, (4,), generator=generator).float()
        replay, _ = visit(replay, tasks.tolist(), update + 1, rounds=2)
        drawn = draw_slots(replay, 6, generator)
        for rows in (draw_any(replay, drawn, 7, generator), draw_recent(replay, drawn, 7, generator)):
            assert torch.equal(step_of(rows, 2).reward, replay.task[drawn].expand(-1, 7))


def test_contexts_come_from_the_newest_visit_and_of_that_from_the_batches_that_tasks_are_inferred_from():
    replay, generator = empty(SPEC, 1, 40, CPU), torch.Generator().manual_seed(0)
    for update in range(2):
        replay, slot = place(replay, torch.tensor([3.0]), update + 1)
        rounds = [experience([10.0 * update + number]) for number in range(3)]
        replay = add(replay, slot, rounds, 1)
    assert set(step_of(draw_recent(replay, slot, 50, generator), 2).reward.flatten().tolist()) == {10.0}
    assert set(step_of(draw_any(replay, slot, 500, generator), 2).reward.flatten().tolist()) == {0, 1, 2, 10, 11, 12}
    replay = add(replay, slot, rounds, 2)
    assert set(step_of(draw_recent(replay, slot, 50, generator), 2).reward.flatten().tolist()) == {10.0, 11.0}


def test_a_visit_without_a_valid_step_leaves_the_context_of_the_one_before():
    replay, slot = visit(empty(SPEC, 1, 24, CPU), [3.0], 1)
    nothing = torch.zeros(1, 2, 3, dtype=torch.bool)
    again = add(replay, slot, [experience([3.0], valid=nothing)], 1)
    assert torch.equal(again.recent, replay.recent)
    assert draw_slots(again, 3, torch.Generator().manual_seed(0)).tolist() == [0, 0, 0]


def test_more_tasks_than_slots_are_refused():
    with pytest.raises(BadField, match=r"num_slots is 2: .* \(3\)"):
        place(task_replay.empty(SPEC, 2, 8, CPU), torch.tensor([1.0, 2.0, 3.0]), 1)
