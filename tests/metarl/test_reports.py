"""What ``metarl evaluate`` says: of which task and how much training, beside which published numbers, and where to."""

import io
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO
from metarl.algorithms.rl2 import RL2
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.metaworld import ML1, ML10
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.evaluate import MetaTest
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.reports.evaluate_run import Protocol, evaluate_run
from metarl.reports.figures import adaptation_figure
from metarl.reports.files import write_evaluation
from metarl.reports.published import differences, published, published_trial
from metarl.reports.tables import comparable, summarize, table, title
from metarl.reports.titles import task_title
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.session import execute
from metarl.runs.snapshot import Loaded, initial_progress

pytestmark = pytest.mark.usefixtures("one_thread")
PAPERS = MAML(GaussianMLP((100, 100), "relu"))
NAVIGATION = Experiment(Navigation.presets["maml2017"], PAPERS, preset="maml2017")
POINTS = Experiment(
    task=Navigation(horizon=5), learner=MAML(), num_tasks=2, num_envs=2, episodes=2, iterations=2, eval_interval=0
)
BANDIT = Experiment(
    task=Bandit.presets["k5"], learner=RL2(RecurrentPolicy(memory_size=4)), num_envs=1, episodes=15, preset="n10_k5"
)


def trained(experiment: Experiment, root: Path, name: str = "run") -> Path:
    run = create_run(experiment, root, name)
    assert execute(experiment, run, console=Console(file=io.StringIO(), markup=False)) == 0
    return run


def evaluated(
    run: Path,
    protocol: Protocol = Protocol(tasks=3, steps=1),  # noqa: B008
    *,
    markup: bool = True,
    **options: Any,
) -> str:
    console = Console(file=io.StringIO(), width=300, markup=markup)
    evaluate_run(run, protocol, console=console, **({"pretrain_iterations": 0} | options))
    return console.file.getvalue()


def loaded(experiment: Experiment, iteration: int = 0) -> Loaded:
    """The newest checkpoint of a run that has had so many iterations."""
    progress = initial_progress(experiment)
    progress.iteration = iteration
    return Loaded(progress, "last", iteration, stopped_early=False, total=experiment.iterations)


def shown(experiment: Experiment, rows: tuple[str, ...], protocol: Protocol = Protocol()) -> str:  # noqa: B008
    """The table of made-up results, on one line."""
    plan = protocol.plan(experiment)
    steps = len(plan.steps)
    zeros = torch.zeros(plan.tasks, steps, 2)
    result = MetaTest(zeros, zeros.long(), zeros.bool(), zeros.double())
    console = Console(file=io.StringIO(), width=5000)
    console.print(table(experiment, plan, loaded(experiment), dict.fromkeys(rows, result), {}))
    return " ".join(console.file.getvalue().split())


# --- row 8: published numbers beside their own protocol and policy -----------------------------------


def test_fault_08_an_untrained_policy_of_another_size_has_no_published_row() -> None:
    rows = ("MAML", "untrained")
    assert "-82.7" in shown(NAVIGATION, rows)
    assert "Ours differs" not in shown(NAVIGATION, rows)
    small = replace(NAVIGATION, learner=MAML(GaussianMLP((32, 32), "relu")))
    assert "-82.7" not in shown(small, rows)
    assert "-40.4" in shown(small, rows)
    assert "Ours differs: policy.hidden_sizes [32, 32] (theirs [100, 100])." in shown(small, rows)


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        (MAML(GaussianMLP((100, 100), "tanh")), "policy.activation tanh (theirs relu)"),
        (replace(PAPERS, adapt_steps=3), "adapt_steps 3 (theirs 1)"),
        (replace(PAPERS, estimator="lvc"), "estimator lvc (theirs maml)"),
        (replace(PAPERS, learn_inner_lr=True), "learn_inner_lr True (theirs False)"),
        (MAML(GaussianMLP((100, 100), "relu", context_size=5)), "policy.context_size 5 (theirs 0)"),
    ],
)
def test_fault_08_in_what_a_learner_differs_from_the_published_one_is_said(learner: MAML, said: str) -> None:
    reference, differing = comparable(replace(NAVIGATION, learner=learner), Protocol().plan(NAVIGATION))
    assert differing == [said]
    assert reference is not None
    assert ("untrained" in reference.returns) == ("policy" not in said)
    assert "MAML" in reference.returns


def test_fault_08_what_is_not_the_learner_makes_no_difference() -> None:
    other = replace(PAPERS, outer=PPO(), inner_lr=0.3, gae_lambda=0.9)
    assert comparable(replace(NAVIGATION, learner=other), Protocol().plan(NAVIGATION))[1] == []


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (Protocol(episodes=20), "an inner step sees 20 episodes"),
        (Protocol(adaptation_episodes=10), "an inner step sees 10 episodes"),
        (Protocol(schedule="constant"), "step sizes after the first are 1 of it"),
    ],
)
def test_fault_08_another_protocol_has_no_published_rows_and_the_reason_is_said(protocol: Protocol, said: str) -> None:
    assert comparable(NAVIGATION, protocol.plan(NAVIGATION)) == (None, [said])
    text = shown(NAVIGATION, ("MAML", "untrained"), protocol)
    assert "-82.7" not in text
    assert f"left out ({said}): Finn" in text


def test_fault_08_fewer_tasks_are_said() -> None:
    reference, differing = comparable(NAVIGATION, Protocol(tasks=20).plan(NAVIGATION))
    assert reference is not None
    assert differing == ["20 tasks (theirs 40)"]


def test_fault_08_trials_say_it_too_and_other_definitions_have_none() -> None:
    reference = published_trial(Bandit.presets["k5"], 10)
    assert reference is not None
    assert differences(reference.learner, BANDIT.learner) == ["policy.memory_size 4 (theirs 256)"]
    assert differences(reference.learner, RL2(RecurrentPolicy("gru", 256))) == []
    text = shown(BANDIT, ("RL2", "RL2, greedy"), Protocol(steps=10))
    assert "Ours differs: policy.memory_size 4 (theirs 256)" in text
    assert text.count(" 6.7 ") == 1  # not beside the greedy row
    assert published_trial(Bandit.presets["k5"], 15) is None
    assert published(Navigation(horizon=7)) is None


# --- row 10: the title says what ran --------------------------------------------------------------


def test_fault_10_the_title_says_what_ran_and_not_what_it_was_begun_from() -> None:
    plan = Protocol().plan(BANDIT)
    assert title(BANDIT, plan, loaded(BANDIT)) == (
        "bandit (k5), trials of 15 episodes: return on 1000 held-out tasks, unfinished: 0 of 100 iterations"
    )
    assert title(BANDIT, plan, loaded(BANDIT, iteration=100)).endswith("held-out tasks, iteration 100")
    assert title(BANDIT, plan, loaded(BANDIT, iteration=14)).endswith("unfinished: 14 of 100 iterations")


@pytest.mark.parametrize(
    ("task", "named"),
    [
        (ML1(), "ml1 (v2, reach-v3)"),
        (ML1(env="push-v3"), "ml1 (v2, push-v3)"),
        (ML1(env="push-v3", reward="v1"), "ml1 (v1, push-v3)"),
        (ML1(env="push-v3", horizon=200), "ml1 (push-v3, horizon 200)"),
        (ML10(), "ml10 (v2)"),
        (Bandit(arms=7), "bandit (arms 7)"),
        (Navigation.presets["corner"], "navigation (corner)"),
        (replace(HalfCheetahDir.presets["v5"], horizon=300), "half_cheetah_dir (v5, horizon 300)"),
    ],
)
def test_fault_10_a_task_is_called_by_what_defines_it(task: Any, named: str) -> None:
    assert task_title(task) == named


def test_fault_10_the_record_and_the_table_have_it(tmp_path: Path) -> None:
    run = trained(POINTS, tmp_path)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"iterations": 100}))
    said = "navigation (horizon 5): return on 3 held-out tasks, unfinished: 2 of 100 iterations"
    assert said in " ".join(evaluated(run).split())  # a title is as wide as its table
    protocol = json.loads((run / "evaluation.json").read_text())["protocol"]
    assert (protocol["title"], protocol["iterations"], protocol["iterations_asked"]) == (said, 2, 100)


# --- row 14: where to ------------------------------------------------------------------------------


def test_fault_14_a_folder_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(POINTS, tmp_path)
    before = sorted(run.rglob("*"))

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"cannot write to .*run \(Permission denied\).*--out") as error:
        evaluated(run)
    assert "\n" not in str(error.value)
    assert sorted(run.rglob("*")) == before
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*--out"):
        evaluated(run, out=tmp_path / "file" / "x")


def test_fault_14_another_folder_takes_everything(tmp_path: Path) -> None:
    run = trained(POINTS, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    out = tmp_path / "new" / "100% [/b] $x$ ü"
    text = evaluated(run, out=out, pretrain_iterations=1, markup=False)  # training speaks to the same console
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert {"evaluation.json", "evaluation.png", "evaluation", "pretrained"} == {path.name for path in out.iterdir()}
    assert str(out / "evaluation.json") in text


def test_fault_14_the_table_is_shown_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, console = trained(POINTS, tmp_path), Console(file=io.StringIO(), width=300)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metarl.reports.evaluate_run.write_evaluation", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate_run(run, Protocol(tasks=2, steps=1), pretrain_iterations=0, console=console)
    assert "return on 2 held-out tasks" in console.file.getvalue()
    assert "success after adaptation" in console.file.getvalue()


def test_fault_14_no_link_is_followed_and_nothing_replaced(tmp_path: Path) -> None:
    run = trained(POINTS, tmp_path)
    evaluated(run)
    record = json.loads((run / "evaluation.json").read_text())
    outside = tmp_path / "outside"
    out = tmp_path / "foreign"
    out.mkdir()
    os.symlink(outside, out / "evaluation.json")
    os.symlink(outside, out / "evaluation-2.png")
    os.symlink(outside, out / "evaluation-3")
    assert write_evaluation(out, record).name == "evaluation-4.json"
    assert write_evaluation(out, record).name == "evaluation-5.json"
    assert not outside.exists()


# --- row 29: names are text -----------------------------------------------------------------------


def test_fault_29_brackets_in_names_are_text(tmp_path: Path) -> None:
    run = trained(replace(POINTS, preset="[/bold]"), tmp_path / "out" / "[red]" / "[" / "x]")
    assert str(run / "evaluation.json") in evaluated(run)
    assert str(run / "pretrained") in evaluated(run, pretrain_iterations=1, markup=False)
    assert "[/x]" in shown(BANDIT, ("[/x]", "[bold]"))


# --- measures -------------------------------------------------------------------------------------


def test_every_measure_is_kept_by_environment_and_drawn(tmp_path: Path) -> None:
    """Two Meta-World environments of two goals; greedy tests are apart from three sampled adaptation episodes."""
    task = ML10(horizon=6)
    experiment = replace(POINTS, task=task, learner=MAML(GaussianMLP((4,))), num_tasks=10, eval_tasks=5, iterations=1)
    run = trained(experiment, tmp_path)
    text = evaluated(run, Protocol(tasks=10, episodes=2, adaptation_episodes=3))
    record = json.loads((run / "evaluation.json").read_text())
    for row in (record, *record["comparisons"].values()):
        for raw in ("returns", "solved_after", "solved_at_end", "solved_share"):
            values = torch.tensor(row[raw])
            assert values.shape == (10, 2, 2), raw
    assert set(record["success"]) == {"MAML", "MAML, greedy", "untrained", "untrained, greedy"}
    names = ["drawer-open-v3", "door-close-v3", "shelf-place-v3", "sweep-into-v3", "lever-pull-v3", "all"]
    for kinds in record["success"].values():
        assert list(kinds) == names
        mine = torch.tensor([label == "door-close-v3" for label in record["labels"]])
        assert kinds["door-close-v3"]["goals"] == mine.sum() == 2
    by_hand = torch.tensor(record["returns"], dtype=torch.float64)[mine].mean((0, 2))
    assert record["success"]["MAML"]["door-close-v3"]["return"] == pytest.approx(by_hand.tolist())
    assert "success of MAML, greedy by environment (1 step)" in text
    assert "after 10 adaptation episodes; here after 3" in " ".join(text.split())
    events = EventAccumulator(str(run / "evaluation"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert "meta_test/adaptation_curve" in tags
    for measure in ("end", "last_50", "any", "return"):
        assert f"meta_test/MAML_greedy/door-close-v3/{measure}" in tags
        assert f"meta_test/untrained/all/{measure}" in tags


def test_a_trial_of_a_task_with_success_is_tested_greedily_after_sampled_episodes(tmp_path: Path) -> None:
    experiment = replace(
        POINTS, task=ML1(env="reach-v3", horizon=6), learner=BANDIT.learner, num_envs=1, eval_tasks=2, iterations=1
    )
    run = trained(experiment, tmp_path)
    text = evaluated(run, Protocol(tasks=2, episodes=3, adaptation_episodes=2))
    record = json.loads((run / "evaluation.json").read_text())
    assert torch.tensor(record["comparisons"]["RL2, greedy"]["solved_share"]).shape == (2, 3, 3)
    assert record["protocol"]["adaptation_episodes"] == 2
    assert "ml1 (reach-v3, horizon 6), trials of 3 episodes" in text
    assert "RL2, greedy: its most likely actions in each episode, all before it sampled." in " ".join(text.split())


def test_environments_have_bars_of_the_greedy_learner_after_adaptation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr("metarl.reports.figures.Figure.savefig", lambda self, *_, **__: drawn.append(self))
    at_end = torch.zeros(10, 2, 2, dtype=torch.bool)
    at_end[2:4, 1] = True  # the second environment of five, after adaptation
    never = torch.zeros(10, 2, 2)
    experiment = replace(POINTS, task=ML10(), eval_tasks=5)
    rows = {
        "MAML": MetaTest(never, never.long(), never.bool(), never.double()),
        "MAML, greedy": MetaTest(never, at_end.long(), at_end, at_end.double()),
    }
    plan = Protocol(tasks=10, steps=1).plan(experiment)
    tasks = experiment.task.published_tasks(10)
    assert tasks is not None
    adaptation_figure(summarize(experiment, plan, loaded(experiment), rows, tasks, {}), tmp_path / "x.png")
    bars = drawn[0].axes[2]
    names = [text.get_text() for text in bars.get_yticklabels()]
    assert dict(zip(names, [bar.get_width() for bar in bars.patches], strict=True)) == {
        "drawer-open-v3": 0,
        "door-close-v3": 1,
        "shelf-place-v3": 0,
        "sweep-into-v3": 0,
        "lever-pull-v3": 0,
    }


def test_table_and_picture_show_the_same_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("metarl.reports.figures.Figure.savefig", lambda self, *_, **__: drawn.append(self))
    plan, progress = Protocol(tasks=3, steps=1).plan(POINTS), loaded(POINTS)
    returns = torch.tensor([[[1.0, 2.0], [3.0, 9.0]], [[0.0, 8.0], [5.0, 5.0]], [[7.0, 7.0], [2.0, 1.0]]])
    result = MetaTest(returns, torch.ones(3, 2, 2).long(), returns > 4, returns.double() / 10)
    rows = {"MAML": result, "MAML, greedy": result}
    record = summarize(POINTS, plan, progress, rows, torch.zeros(3, 2), {})
    adaptation_figure(record, tmp_path / "x.png")
    returned, solved = drawn[0].axes
    console = Console(file=io.StringIO(), width=400)
    console.print(table(POINTS, plan, progress, rows, {}))
    for axes, intervals in ((returned, record["mean"]), (solved, record["success"]["MAML"]["all"]["end"])):
        corners = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert {round(y, 6) for y in corners} >= {round(e[side], 6) for e in intervals for side in ("low", "high")}
    for e in record["mean"]:
        assert f"{e['low']:.1f} .. {e['high']:.1f}" in console.file.getvalue()
    assert "bands: 95 % intervals over tasks" in drawn[0].get_suptitle()


def test_records_from_before_these_measures_can_still_be_drawn(tmp_path: Path) -> None:
    """Of the last version: no title, success by kind as before, iqm_after ... and nothing at the last step."""
    estimate = {"value": 0.5, "low": 0.0, "high": 1.0}
    old = {"goals": 2, "before": 0.0, "after": estimate, "iqm_after": estimate}
    protocol = {"task": "ml1", "preset": "tuned", "algorithm": "MAML", "num_tasks": 2, "steps": ["before", "1 step"]}
    record = {
        "protocol": protocol | {"step_size_scales": [1.0]},
        "mean": [estimate, estimate],
        "comparisons": {"untrained": {"mean": [estimate, estimate]}},
        "success": {"MAML": {"push-v3": old, "all": old}},
        "published": None,
    }
    for content in (record, record | {"success": {}}, {k: v for k, v in record.items() if k != "success"}):
        adaptation_figure(content, tmp_path / "x.png")
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
