"""The field's rows, and columns that end at equal steps or equal time."""

import pytest
from test_studies import load

from metarl.runs.studies import Column, env_steps


@pytest.mark.parametrize(
    ("bounds", "value"),
    [
        ({}, 4.0),
        ({"within_steps": 300.0}, 2.5),
        ({"within_minutes": 2.0}, 1.5),
        ({"within_minutes": 1e9}, 4.0),
        ({"within_steps": 300.0, "within_minutes": 2.0}, 1.5),
        ({"within_steps": 99.0}, None),
    ],
)
def test_a_column_ends_at_equal_steps_or_at_equal_time(bounds: dict[str, float], value: float | None) -> None:
    """Iterations of 100 steps, 30 s of sampling and 30 s of updates, the fourth without a number."""
    progress = [
        {"env_steps": str(100 * k), "gain": "" if k == 4 else str(k), "time/sampling_seconds": "30"}
        | {"time/optimization_seconds": "30"}
        for k in (1, 2, 3, 4, 5)
    ]
    assert Column("", tag="gain", last=2, **bounds).read({}, progress) == value


def test_the_field_is_every_learner_on_every_task_it_fits_at_equal_steps() -> None:
    rows = {row.name: row.experiment for row in load("field").STUDY.rows}
    assert len(rows) == 6 * 6 - 1
    for task in ("half_cheetah_vel", "half_cheetah_dir", "ant_dir", "walker2d_rand_params", "half_circle", "grid_navi"):
        budgets = {name: env_steps(x) for name, x in rows.items() if name.startswith(task) and "pearl" not in name}
        assert len(budgets) == 5
        assert max(budgets.values()) <= 1.01 * min(budgets.values()), budgets
        assert len({repr(x.task) for name, x in rows.items() if name.startswith(task)}) == 1, "one definition"
