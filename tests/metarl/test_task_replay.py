"""The replay of each task: no task's transitions in another's slot, none of tasks that were not trained on."""

import pytest
import torch
from pearl_checks import SPEC, experience
from torch import Tensor

from metarl.algorithms.task_replay import Slots, draw_slots, empty, remember
from metarl.envs.fields import BadField
from metarl.replay import Replay

CPU = torch.device("cpu")


class Remembering:
    """A replay that tasks come to, whose transitions are paid the task's own parameter unless told otherwise."""

    def __init__(self, slots: int, capacity: int) -> None:
        self.replay, self.slots = empty(SPEC, slots, capacity, CPU)
        self.update = 0

    def visit(self, tasks: list[float], *rounds: float, inferring: int = 1, valid: Tensor | None = None) -> None:
        self.update += 1
        paid = [[mark] * len(tasks) for mark in rounds] or [tasks]
        batches = [experience(marks, valid=valid) for marks in paid]
        self.replay, self.slots = remember(
            self.replay, self.slots, torch.tensor(tasks), batches, inferring=inferring, update=self.update
        )

    def slot(self, task: float) -> int:
        (found,) = (self.slots.task == task).nonzero().flatten().tolist()
        return int(found)

    def rewards(self, task: float) -> list[float]:
        """Of all that a task's slot holds, the oldest first."""
        slot = torch.tensor([self.slot(task)])
        return self.replay.newest(slot, int(self.replay.live()[slot]))["reward"].flatten().tolist()


def test_a_task_finds_its_slot_again_and_a_new_one_takes_the_oldest():
    ours = Remembering(3, 24)
    ours.visit([5.0, 7.0])
    five, seven = ours.slot(5.0), ours.slot(7.0)
    ours.visit([7.0, 9.0])
    assert ours.slot(7.0) == seven, "a known task did not find its slot"
    assert ours.rewards(7.0) == [7.0] * 12
    ours.visit([11.0])
    assert ours.slot(11.0) == five, "the task met longest ago did not make room"
    assert ours.rewards(11.0) == [11.0] * 6
    assert set(ours.slots.task.tolist()) == {7.0, 9.0, 11.0}


def test_equal_tasks_of_a_meta_batch_share_a_slot():
    ours = Remembering(2, 24)
    ours.visit([-1.0, 1.0, -1.0])
    assert ours.rewards(-1.0) == [-1.0] * 12
    assert ours.rewards(1.0) == [1.0] * 6


def test_a_slot_keeps_the_newest():
    ours = Remembering(1, 8)
    for mark in (0.0, 1.0, 2.0):
        ours.visit([3.0], mark)
    assert ours.rewards(3.0) == [1.0] * 2 + [2.0] * 6
    with pytest.raises(BadField, match=r"capacity is 8: .*\(12 steps\)"):
        ours.visit([3.0], 1.0, 1.0)


def test_steps_that_are_not_valid_are_left_out_also_where_tasks_have_different_numbers():
    valid = torch.ones(3, 2, 3, dtype=torch.bool)
    valid[0, 0, 1:] = valid[2] = False
    ours, batch = Remembering(3, 8), experience([1.0, 2.0, 3.0], valid=valid)
    ours.visit([1.0, 2.0, 3.0], valid=valid)
    assert sorted(ours.replay.live().tolist()) == [0, 4, 6]
    assert 3.0 not in ours.slots.task, "a task that brought nothing has a slot"
    found = ours.replay.newest(torch.tensor([ours.slot(1.0)]), 4)
    torch.testing.assert_close(found["obs"][0], batch.obs[0][valid[0]])
    torch.testing.assert_close(found["next_obs"][0], batch.next_obs[0][valid[0]])
    torch.testing.assert_close(found["action"][0], batch.action[0][valid[0]])


def test_however_tasks_come_and_go_no_transition_is_another_tasks():
    generator, ours = torch.Generator().manual_seed(0), Remembering(5, 48)
    for _ in range(30):
        tasks = torch.randint(9, (4,), generator=generator).float().tolist()
        ours.visit(tasks, valid=torch.rand(4, 2, 3, generator=generator) < 0.7)
        drawn = draw_slots(ours.slots, 6, generator)
        for newest in (None, ours.slots.recent[drawn]):
            rewards = ours.replay.sample(drawn, 7, generator, newest=newest)["reward"]
            assert torch.equal(rewards, ours.slots.task[drawn].unsqueeze(1).expand(-1, 7))


def test_contexts_come_from_the_newest_visit_and_of_that_from_the_batches_that_tasks_are_inferred_from():
    generator, ours, slot = torch.Generator().manual_seed(0), Remembering(1, 40), torch.tensor([0])

    def drawn(recent: Tensor | None) -> set[float]:
        return set(ours.replay.sample(slot, 500, generator, newest=recent)["reward"].flatten().tolist())

    ours.visit([3.0], 0.0, 1.0, 2.0)
    ours.visit([3.0], 10.0, 11.0, 12.0)
    assert drawn(ours.slots.recent) == {10.0}
    assert drawn(None) == {0.0, 1.0, 2.0, 10.0, 11.0, 12.0}
    ours.visit([3.0], 20.0, 21.0, 22.0, inferring=2)
    assert drawn(ours.slots.recent) == {20.0, 21.0}


def test_a_visit_without_a_valid_step_leaves_the_context_of_the_one_before():
    ours = Remembering(1, 24)
    ours.visit([3.0])
    before: tuple[Replay, Slots] = (ours.replay, ours.slots)
    ours.visit([3.0], valid=torch.zeros(1, 2, 3, dtype=torch.bool))
    assert torch.equal(ours.slots.recent, before[1].recent)
    assert ours.replay is before[0]
    assert draw_slots(ours.slots, 3, torch.Generator().manual_seed(0)).tolist() == [0, 0, 0]


def test_more_tasks_than_slots_are_refused():
    with pytest.raises(BadField, match=r"num_slots is 2: .* \(3\)"):
        Remembering(2, 8).visit([1.0, 2.0, 3.0])
