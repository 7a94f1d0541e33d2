"""Learning curves of runs side by side: which runs share a line, and what the lines are called."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO
from metarl.algorithms.rl2 import RL2
from metarl.envs.metaworld import ML1
from metarl.envs.small.navigation import Navigation
from metarl.reports.curves import read_scalars
from metarl.reports.figures import curve_names, learning_curves, panel_names
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run

BASE = Experiment(task=Navigation(), learner=MAML(), preset="maml2017")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What is drawn, in place of its files."""
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    return drawn


def recorded(experiment: Experiment, root: Path, name: str, returns: list[float]) -> Path:
    run = create_run(experiment, root, name)
    rows = [f"{i},{100 * (i + 1)},{value}" for i, value in enumerate(returns)]
    (run / "progress.csv").write_text("\n".join(["iteration,env_steps,meta_train/return_post", *rows]) + "\n")
    return run


def test_runs_that_differ_in_seed_length_or_machine_share_a_line() -> None:
    others = [replace(BASE, seed=1), replace(BASE, iterations=7), replace(BASE, num_threads=1, eval_interval=3)]
    assert set(curve_names([BASE, *others])) == {"MAML TRPO"}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(BASE, learner=MAML(inner_lr=0.5)), ("learner.inner_lr 0.1", "learner.inner_lr 0.5")),
        (replace(BASE, num_tasks=3), ("num_tasks 40", "num_tasks 3")),
    ],
)
def test_runs_that_differ_in_more_do_not_and_the_difference_is_named(other: Experiment, named: tuple[str, str]) -> None:
    first, second, third = curve_names([BASE, other, replace(other, seed=5)])
    assert first == f"MAML TRPO, {named[0]}"
    assert second == third == f"MAML TRPO, {named[1]}"


def test_what_tells_lines_apart_is_the_learner_then_the_preset_then_the_fields() -> None:
    learners = [MAML(), MAML(outer=PPO()), MAML(estimator="lvc"), RL2()]
    assert curve_names([replace(BASE, learner=learner) for learner in learners]) == [
        "MAML TRPO",
        "MAML PPO",
        "MAML TRPO lvc",
        "RL2",
    ]
    other = replace(BASE, learner=MAML(inner_lr=0.5), preset="mine")
    assert curve_names([BASE, other]) == ["MAML TRPO, preset maml2017", "MAML TRPO, preset mine"]
    elsewhere = replace(other, task=ML1(), preset="tuned")
    assert curve_names([BASE, elsewhere]) == ["MAML TRPO", "MAML TRPO"]


def test_a_panel_is_a_task_named_with_its_definition_where_that_is_one() -> None:
    other = replace(BASE, task=Navigation.presets["corner"], preset="promp")
    ml1 = replace(BASE, task=ML1(), preset="tuned")
    assert panel_names([other, other, ml1]) == ["navigation (corner)", "navigation (corner)", "ml1 (v2, reach-v3)"]
    assert panel_names([BASE, other]) == ["navigation (maml2017)", "navigation (corner)"]
    own = replace(BASE, task=Navigation(horizon=7))
    assert panel_names([BASE, own]) == ["navigation (maml2017)", "navigation (horizon 7)"]
    push, other_goals = replace(BASE, task=ML1(env="push-v3")), replace(BASE, task=ML1(env="push-v3", goal_seed=3))
    assert panel_names([push, other_goals]) == ["ml1 (v2, push-v3)", "ml1 (push-v3, goal_seed 3)"]


def test_a_line_is_the_mean_of_its_seeds_beside_thin_ones(tmp_path: Path, figures: list[Figure]) -> None:
    """The lines of the figure itself: the mean ends with the shorter run; the twelfth line is drawn, too."""
    runs = [recorded(BASE, tmp_path, "a", [1.0, 2.0]), recorded(replace(BASE, seed=1), tmp_path, "b", [3.0, 6.0, 9.0])]
    runs += [recorded(replace(BASE, num_tasks=n), tmp_path, f"n{n}", [float(n)]) for n in range(1, 12)]
    learning_curves(runs, tmp_path / "new" / "curves.png", tags=["meta_train/return_post"])
    (axes,) = figures[0].axes
    mean, first, second, *others = axes.lines
    assert mean.get_xdata().tolist() == [100.0, 200.0]
    assert [line.get_ydata().tolist() for line in (mean, first, second)] == [[2.0, 4.0], [1.0, 2.0], [3.0, 6.0, 9.0]]
    assert mean.get_linewidth() > first.get_linewidth()
    assert {line.get_color() for line in (mean, first, second)} == {mean.get_color()}
    assert [line.get_ydata().tolist() for line in others] == [[float(n)] for n in range(1, 12)]
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[:2] == [
        "MAML TRPO, num_tasks 40, mean of 2 runs, band from lowest to highest",
        "MAML TRPO, num_tasks 1, 1 run",
    ]


def test_tasks_have_panels_side_by_side_in_which_a_learner_keeps_its_color(
    tmp_path: Path, figures: list[Figure]
) -> None:
    lvc, ml1 = replace(BASE, learner=MAML(estimator="lvc")), replace(BASE, task=ML1())
    experiments = [BASE, lvc, replace(ml1, learner=lvc.learner), ml1]
    runs = [recorded(experiment, tmp_path, str(i), [float(i)]) for i, experiment in enumerate(experiments)]
    learning_curves(runs, tmp_path / "curves.png", tags=["meta_train/return_post"])
    left, right = figures[0].axes
    assert [left.get_title(), right.get_title()] == ["navigation (maml2017)", "ml1 (v2, reach-v3)"]
    assert [[line.get_ydata().tolist() for line in axes.lines] for axes in (left, right)] == [[[0], [1]], [[2], [3]]]
    assert [line.get_color() for line in left.lines] == [line.get_color() for line in right.lines][::-1]
    assert left.lines[0].get_color() != left.lines[1].get_color()


def test_definitions_of_a_task_have_panels_of_their_own(tmp_path: Path, figures: list[Figure]) -> None:
    runs = [recorded(BASE, tmp_path, "a", [1.0])]
    runs.append(recorded(replace(BASE, task=Navigation.presets["corner"]), tmp_path, "b", [2.0]))
    learning_curves(runs, tmp_path / "curves.png", tags=["meta_train/return_post"])
    titles = ["navigation (maml2017)", "navigation (corner)"]
    assert [axes.get_title() for axes in figures[0].axes] == titles
    assert [line.get_label() for axes in figures[0].axes for line in axes.lines] == ["MAML TRPO, 1 run"] * 2


def test_a_picture_is_written(tmp_path: Path) -> None:
    learning_curves([recorded(BASE, tmp_path, "a", [1.0, 2.0])], tmp_path / "a.png", tags=["meta_train/return_post"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_tag_that_was_not_recorded_is_refused_with_those_that_were(tmp_path: Path) -> None:
    run = recorded(BASE, tmp_path, "a", [1.0])
    with pytest.raises(ValueError, match=r"tag is loss: .*env_steps, iteration, meta_train/return_post"):
        read_scalars(run, ["loss"])


def test_a_tag_that_has_no_value_yet_was_not_recorded(tmp_path: Path) -> None:
    """As after a resume from before the first test."""
    run = recorded(BASE, tmp_path, "a", [1.0])
    (run / "progress.csv").write_text("env_steps,meta_test/return_step_0\n10,\n")
    with pytest.raises(ValueError, match=r"tag is meta_test/return_step_0: .* has env_steps"):
        read_scalars(run, ["meta_test/return_step_0"])


def test_a_run_without_an_iteration_has_nothing_to_plot(tmp_path: Path) -> None:
    run = create_run(BASE, tmp_path, "a")
    with pytest.raises(ValueError, match=r"a has nothing to plot yet"):
        learning_curves([run], tmp_path / "a.png", tags=["meta_train/return_post"])


def test_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="runs is empty"):
        learning_curves([], tmp_path / "a.png", tags=["meta_train/return_post"])


def test_each_tag_has_a_panel_of_the_runs_that_recorded_it(tmp_path: Path, figures: list[Figure]) -> None:
    returns = recorded(BASE, tmp_path, "a", [1.0])
    both = recorded(replace(BASE, task=ML1()), tmp_path, "b", [1.0])
    (both / "progress.csv").write_text("env_steps,meta_train/return_post,meta_train/success_post\n10,1,\n20,2,0.5\n")
    learning_curves([returns, both], tmp_path / "c.png", tags=["meta_train/success_post", "meta_train/return_post"])
    panels = [(a.get_title(), a.get_ylabel(), a.lines[0].get_xydata().tolist()) for a in figures[0].axes]
    assert panels == [
        ("navigation (maml2017)", "meta_train/return_post", [[100, 1]]),
        ("ml1 (v2, reach-v3)", "meta_train/success_post", [[20, 0.5]]),
        ("ml1 (v2, reach-v3)", "meta_train/return_post", [[10, 1], [20, 2]]),
    ]
