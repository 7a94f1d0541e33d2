"""Model selection: validation tasks of their own, the best checkpoint kept, patience, and runs begun from others."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from run_checks import TINY, edit, run_quietly
from torch import Tensor

from metarl import agent
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO
from metarl.cli.train import start_of
from metarl.envs.fields import BadField
from metarl.envs.metaworld import ML1, ML10, MT10
from metarl.envs.registry import find_preset
from metarl.envs.small.navigation import Navigation
from metarl.evaluate import VALIDATION_SEED, held_out_tasks, validation_tasks
from metarl.networks.mlp import GaussianMLP
from metarl.reports.evaluate_run import Protocol, evaluate_run
from metarl.runs import beginning, checkpoint, session
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.held_out import validation_metrics
from metarl.runs.recorded import SCORE, Selection, recorded_selection
from metarl.runs.selection import selection_of, stopped_early
from metarl.runs.snapshot import initial_progress, load_chosen
from metarl.runs.studies import Row, Study
from metarl.runs.study_folders import plan, standing
from metarl.seeds import stream

pytestmark = pytest.mark.usefixtures("one_thread")
CHOSEN = replace(TINY, iterations=6, validation_interval=1, validation_tasks=2, checkpoint_interval=2)
SCORES = (1.0, 3.0, 2.0, float("nan"), 3.0, 2.9)  # the best is the second; of equals the first


def fail(text: str) -> None:
    raise AssertionError(text)


def meta(run: Path, which: str = "last") -> dict[str, Tensor]:
    return load_chosen(load_experiment(run), run, which, fail).progress.learner_state.meta


def same(x: dict[str, Tensor], y: dict[str, Tensor]) -> bool:
    return list(x) == list(y) and all(torch.equal(x[name], y[name]) for name in x)


def trained(experiment: Experiment, root: Path, name: str) -> Path:
    run = create_run(experiment, root, name)
    run_quietly(experiment, run)
    return run


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "validation_metrics", lambda _, progress, __: {SCORE: SCORES[progress.iteration - 1]})


def test_the_first_of_the_highest_scores_is_the_best_and_patience_counts_those_after_it() -> None:
    selection, found = Selection(), []
    for iteration, score in enumerate(SCORES, start=1):
        selection = selection.after(score, iteration)
        found.append((selection.iteration, selection.worse))
    assert found == [(1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4)]
    assert [selection.exhausted(patience) for patience in (0, 4, 5)] == [False, True, False]
    rows = [{"iteration": str(k), SCORE: f"{score:.9g}"} for k, score in enumerate(SCORES)]
    assert recorded_selection(rows) == selection
    assert recorded_selection([{"iteration": "0", SCORE: ""}, {"iteration": "1"}]) == Selection()


@pytest.mark.parametrize("damage", [3, {"score": 1.0}, {"score": 1, "iteration": 1, "worse": 0}])
def test_a_selection_that_no_training_leaves_is_refused(damage: Any) -> None:
    with pytest.raises(CheckpointError):
        selection_of({"selection": damage})


def test_validation_tasks_are_neither_those_of_training_nor_of_the_test() -> None:
    task = Navigation()
    chosen, tested = validation_tasks(task, 8), held_out_tasks(task, 8)
    drawn = task.sample(8, stream(0, "tasks"))
    assert len(torch.cat([chosen, tested, drawn]).unique(dim=0)) == 24
    assert torch.equal(validation_tasks(task, 8), chosen)
    with pytest.raises(BadField, match="validation tasks are drawn from it"):
        replace(TINY, seed=VALIDATION_SEED)


@pytest.mark.parametrize("task", [ML1(validation_goals=10), ML10(validation_goals=10), MT10(validation_goals=10)])
def test_metaworld_keeps_training_goals_apart(task: ML1 | ML10 | MT10) -> None:
    environments = len(task.all_goals)
    kept = {tuple(row) for row in task.validation_tasks(10 * environments).tolist()}
    tested = {tuple(row) for row in task.published_tasks(task.num_test_tasks).tolist()}
    drawn = {tuple(row) for row in task.sample(40 * environments, torch.Generator().manual_seed(0)).tolist()}
    assert (len(kept), len(drawn)) == (10 * environments, 40 * environments)  # each goal once
    assert not kept & (drawn | tested)
    assert {row[0] for row in kept} == {row[0] for row in drawn}
    with pytest.raises(BadField, match=rf"validation_tasks is {10 * environments + 1}: .* more validation_goals"):
        task.validation_tasks(10 * environments + 1)


def test_metaworld_without_goals_kept_apart_cannot_be_validated() -> None:
    options = {"learner": MAML(), "num_tasks": 2, "num_envs": 2, "episodes": 2, "validation_interval": 5}
    with pytest.raises(BadField, match="ml1 keeps 0 goals for validation"):
        Experiment(task=ML1(), **options)
    Experiment(task=ML1(validation_goals=20), **options, validate_by="success")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patience": 2, "validation_interval": 0}, "give a validation_interval"),
        ({"validate_by": "success", "task": find_preset("half_cheetah_vel")}, "which half_cheetah_vel does not define"),
        ({"validation_tasks": 0}, "use at least 1"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadField, match=said):
        replace(CHOSEN, **change)


def test_validation_changes_nothing_in_training_and_the_score_is_what_it_says(tmp_path: Path) -> None:
    plain, chosen = trained(replace(CHOSEN, validation_interval=0), tmp_path, "plain"), trained(CHOSEN, tmp_path, "it")
    assert same(meta(plain), meta(chosen))
    assert "selection" not in checkpoint.load_newest(plain / checkpoint.DIRECTORY, fail)
    progress = load_chosen(CHOSEN, chosen, "best", fail).progress
    found = validation_metrics(CHOSEN, progress)
    assert found[SCORE] == found["validation/return_step_1"]
    recorded = max(row[SCORE] for row in rows(chosen))
    assert found[SCORE] == pytest.approx(recorded, rel=1e-6)
    assert progress.iteration == 1 + [row[SCORE] for row in rows(chosen)].index(recorded)


def rows(run: Path) -> list[dict[str, float]]:
    header, *lines = (run / "progress.csv").read_text().splitlines()
    return [dict(zip(header.split(","), map(float, line.split(",")), strict=True)) for line in lines]


@pytest.mark.usefixtures("scripted")
def test_the_best_is_kept_beside_the_newest_two_and_is_the_state_of_that_iteration(tmp_path: Path) -> None:
    run = trained(CHOSEN, tmp_path, "run")
    kept = sorted(path.name for path in (run / checkpoint.DIRECTORY).iterdir())
    assert kept == ["best_00000002.ckpt", "iteration_00000004.ckpt", "iteration_00000006.ckpt"]
    two = trained(replace(CHOSEN, iterations=2, validation_interval=0), tmp_path, "two")
    assert same(meta(run, "best"), meta(two))
    assert same(meta(run, "2"), meta(two))
    assert same(meta(run, "6"), meta(run))
    assert not same(meta(run, "4"), meta(run))
    assert same(agent.load(run, checkpoint="best").state.meta, meta(two))
    assert load_chosen(CHOSEN, run, "best", fail).describe() == "best by validation: iteration 2 of 6"
    assert load_chosen(CHOSEN, run, "4", fail).describe() == "chosen: iteration 4 of 6"


@pytest.mark.usefixtures("scripted")
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    run = trained(CHOSEN, tmp_path, "run")
    with pytest.raises(CheckpointError, match=r"no checkpoint of iteration 3: it has 2, 4, 6"):
        meta(run, "3")
    with pytest.raises(BadField, match="checkpoint is 'newest': use last, best or the number"):
        meta(run, "newest")
    best = run / checkpoint.DIRECTORY / "best_00000002.ckpt"
    best.write_bytes((run / checkpoint.DIRECTORY / "iteration_00000004.ckpt").read_bytes())
    with pytest.raises(CheckpointError, match=r"best_00000002.ckpt is of iteration 4: it was renamed"):
        meta(run, "best")
    best.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of iteration 2: it has 4, 6"):
        meta(run, "best")
    with pytest.raises(BadField, match=r"checkpoint is best: .* has no validation"):
        meta(trained(TINY, tmp_path, "plain"), "best")


@pytest.mark.usefixtures("scripted")
def test_a_run_ends_when_patience_does_and_goes_on_with_more_of_it(tmp_path: Path) -> None:
    impatient = replace(CHOSEN, patience=2)
    run = create_run(impatient, tmp_path, "run-seed0")
    assert "stopped early after 4 iterations: none of the last 2 validations" in run_quietly(impatient, run)
    loaded = load_chosen(impatient, run, "last", fail)
    assert (loaded.progress.iteration, loaded.complete) == (4, True)
    assert loaded.describe() == "iteration 4, stopped early after 4 of 6"
    assert "stopped early after 4 iterations" in run_quietly(impatient, run)
    assert len(rows(run)) == 4
    (one,) = plan(Study("s", "", (Row("run", "", impatient),), ()), tmp_path, 1)
    assert standing(one).trained
    assert stopped_early(impatient, standing(one).progress)
    more = replace(impatient, patience=4)
    run_quietly(more, run)
    assert same(meta(run), meta(trained(CHOSEN, tmp_path, "whole")))
    assert same(meta(run, "best"), meta(tmp_path / "whole", "best"))


@pytest.mark.usefixtures("scripted")
def test_a_resumed_run_remembers_the_best_of_before(tmp_path: Path) -> None:
    run = trained(replace(CHOSEN, iterations=3), tmp_path, "run")
    run_quietly(CHOSEN, run)
    newest = checkpoint.load_newest(run / checkpoint.DIRECTORY, fail)
    assert newest["selection"] == {"score": 3.0, "iteration": 2, "worse": 4}
    whole = trained(CHOSEN, tmp_path, "whole")
    assert same(meta(run, "best"), meta(whole, "best"))


@pytest.mark.usefixtures("scripted")
def test_an_evaluation_says_what_it_tested_and_whether_the_run_is_complete(tmp_path: Path) -> None:
    run = trained(replace(CHOSEN, iterations=3), tmp_path, "run")
    (run / "config.json").write_text((run / "config.json").read_text().replace('"iterations": 3', '"iterations": 6'))
    for which, said in (
        ("last", "unfinished: 3 of 6 iterations"),
        ("best", "best by validation: iteration 2, unfinished: 3 of 6 iterations"),
    ):
        console = Console(file=io.StringIO(), width=300)
        evaluate_run(
            run, Protocol(tasks=2, steps=1), pretrain_iterations=0, console=console, checkpoint=which, out=tmp_path
        )
        assert f"checkpoint {which}: {said}" in console.file.getvalue()  # type: ignore[attr-defined]
    record = json.loads((tmp_path / "evaluation-2.json").read_text())["protocol"]
    wanted = {"checkpoint": "best", "iterations": 2, "iterations_of_run": 3, "iterations_asked": 6, "complete": False}
    assert {name: record[name] for name in wanted} == wanted
    assert said in record["title"]


# runs begun from others


def test_a_run_begins_with_the_parameters_of_another_and_needs_it_no_more(tmp_path: Path) -> None:
    parent = trained(TINY, tmp_path, "parent")
    learned = meta(parent)
    other = replace(TINY, learner=MAML(inner_lr=0.3, outer=PPO(epochs=2)), seed=5, init_from=str(parent))
    run = create_run(other, tmp_path, "run")
    shutil.rmtree(parent)
    come = json.loads((run / "versions.json").read_text())["init_from"]
    assert (come["run"], come["iteration"]) == (str(parent), 2)
    assert load_experiment(run) == other
    begun = initial_progress(other)
    assert "after 2 iterations" in beginning.begin_from(begun, run)
    assert same(begun.learner_state.meta, learned)
    assert begun.iteration == begun.env_steps == 0
    run_quietly(replace(other, iterations=1), run)
    run_quietly(other, run)
    whole = create_run(replace(other, init_from=""), tmp_path, "whole")
    assert not same(meta(run), meta(trained(replace(other, init_from=""), tmp_path, "random")))
    shutil.copy(run / beginning.NAME, whole / beginning.NAME)
    (whole / "config.json").write_text((run / "config.json").read_text())
    run_quietly(other, whole)
    assert same(meta(run), meta(whole))


def test_the_options_of_a_run_begun_from_another_start_from_its_own(tmp_path: Path) -> None:
    parent = create_run(TINY, tmp_path, "parent")
    assert start_of([], None, None, str(parent)) == replace(TINY, init_from=str(parent))
    assert start_of([], "navigation", None, str(parent)).num_tasks != TINY.num_tasks


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        (
            MAML(GaussianMLP((7,))),
            r"its weight_0 has shape \(2, 64\), this learner's \(2, 7\).*use the learner, policy",
        ),
        (MAML(learn_inner_lr=True), "it has no inner_lr"),
    ],
)
def test_parameters_of_other_names_or_shapes_are_refused_before_any_folder(
    learner: MAML, said: str, tmp_path: Path
) -> None:
    parent = trained(TINY, tmp_path, "parent")
    with pytest.raises(BadField, match=f"init_from is .*parent': .*{said}"):
        create_run(replace(TINY, learner=learner, init_from=str(parent)), tmp_path / "runs", "run")
    assert not list((tmp_path / "runs").glob("*"))


def nothing(content: dict[str, Any]) -> None:
    content["learner"] = {}


def infinite(content: dict[str, Any]) -> None:
    next(iter(content["learner"]["meta"].values()))[...] = float("inf")


@pytest.mark.parametrize("change", [nothing, infinite])
def test_a_parent_that_holds_what_no_training_leaves_is_refused(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    parent = trained(TINY, tmp_path, "parent")
    edit(parent, change)
    for number, root in zip(count(), (parent, tmp_path / "nowhere"), strict=False):
        with pytest.raises(BadField, match="init_from is"):
            create_run(replace(TINY, init_from=str(root)), tmp_path, f"run{number}")


def test_a_damaged_beginning_is_refused(tmp_path: Path) -> None:
    run = create_run(replace(TINY, init_from=str(trained(TINY, tmp_path, "parent"))), tmp_path, "run")
    raw = bytearray((run / beginning.NAME).read_bytes())
    raw[-100] ^= 1
    (run / beginning.NAME).write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"init\.ckpt is damaged"):
        beginning.begin_from(initial_progress(TINY), run)
