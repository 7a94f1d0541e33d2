"""``metarl report``: runs over seeds, side by side, as tables, a CSV file and performance profiles."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
from rich.console import Console

from metarl.reports.files import require_writable
from metarl.reports.gathering import Group, Measure, gather
from metarl.reports.profiles import profile_figure
from metarl.reports.published import published, published_trial
from metarl.reports.sheets import Sheet, latex, markdown, screen
from metarl.reports.statistics import Estimate, Scores, over_runs, probability_of_improvement
from metarl.reports.study_table import millions

FEW = 10  # runs; of fewer, bootstrap intervals are too narrow
NOTE = (
    "In brackets: 95 % intervals from resampling whole runs, within each task distribution (stratified bootstrap, "
    "2000 resamples; Agarwal et al. 2021). A run's held-out tasks are resampled with it, for they share its luck. One "
    f"run has no interval; those of fewer than {FEW} runs are too narrow."
)
IQM_NOTE = "IQM: mean of the middle half of all scores, over runs and held-out tasks."


def write_report(
    runs: Sequence[Path],
    out: Path,
    console: Console,
    *,
    measure: Measure = "auto",
    step: int | None = None,
    by_task: bool = False,
) -> list[Group]:
    """Shows the tables of a report and writes them to ``out``: report.md, report.csv, report.tex and profiles.png.

    Args:
        runs: run folders, or folders of run folders.
        measure: return, success (of greedy episodes at their end), or auto, success where the task defines it.
        step: inner step, or episode of a trial whose success counts, from 0; None: the last that was tested.
        by_task: resample the runs of each held-out task by themselves, in place of whole runs.

    Raises:
        ValueError: there is nothing to report, or ``out`` cannot be written.
    """
    require_writable(out)

    def warn(sentence: str) -> None:
        console.print(sentence, markup=False, highlight=False)

    groups = gather(runs, warn, measure=measure, step=step)
    sheets = [scores_sheet(groups, by_task=by_task), *kinds_sheets(groups), *improvement_sheet(groups)]
    sheets += across_sheet(groups)
    for sheet in sheets:
        console.print(screen(sheet))
    (out / "report.md").write_text("\n".join(map(markdown, sheets)))
    (out / "report.tex").write_text("\n".join(map(latex, sheets)))
    (out / "report.csv").write_text(as_csv(groups, by_task=by_task))
    profile_figure(groups, out / "profiles.png")
    names = ", ".join(str(out / name) for name in ("report.md", "report.csv", "report.tex", "profiles.png"))
    console.print(f"wrote {names}", markup=False, highlight=False)
    return groups


def text_of(estimate: Estimate, measure: str, num_runs: int) -> str:
    """``369.0 [250.0, 456.0]``, or 61 % [50, 72]; one run has no interval."""
    percent = measure == "success"
    value, low, high = (f"{100 * x:.0f}" if percent else f"{x:.1f}" for x in estimate)
    return f"{value}{' %' if percent else ''}" + (f" [{low}, {high}]" if num_runs > 1 else "")


def measured(group: Group) -> str:
    """What a group's scores are, in words."""
    steps, trial = group.runs[0].record["protocol"]["steps"], not group.runs[0].record["protocol"]["step_size_scales"]
    if group.runs[0].measure == "success":
        return f"success at the end, greedy, {'in ' if trial else 'after '}{steps[-1]}"
    return f"return of a trial of {len(steps)} episodes" if trial else f"return after {steps[-1]}"


def scores_sheet(groups: Sequence[Group], *, by_task: bool) -> Sheet:
    """A line a group, and what was published beside it."""
    rows: list[list[str]] = []
    notes = [NOTE, IQM_NOTE]
    if by_task:
        notes[0] = NOTE.replace("whole runs, within each task distribution", "the runs of each task by themselves")
        notes[0] = notes[0].replace("A run's held-out tasks are resampled with it, for they share its luck. ", "")
    for group in groups:
        count, measure = len(group.runs), group.runs[0].measure
        estimates = [over_runs([group.scores], iqm=iqm, by_task=by_task) for iqm in (False, True)]
        steps = np.mean([one.record["protocol"]["env_steps"] for one in group.runs])
        cells = [text_of(estimate, measure, count) for estimate in estimates]
        before = text_of(over_runs([group.before]), measure, count)
        tasks = str(group.scores.shape[1])
        rows.append(
            [group.task, group.name, str(count), tasks, before, *cells, millions(float(steps)), measured(group)]
        )
        for method, value, note in _published(group):
            blank = ["", "", "", f"{value:.1f}", "", "", ""]
            if (row := [group.task, f"{method}, published", *blank]) not in rows:
                rows.append(row)
            notes += [note] if note not in notes else []
    headings = ("task", "learner", "runs", "held-out tasks", "before", "mean", "IQM", "env steps", "score")
    return Sheet("Held-out tasks, over seeds", headings, rows, tuple(notes))


def _published(group: Group) -> Iterator[tuple[str, float, str]]:
    """Published scores of the same measure and protocol: method, mean, and where they are from."""
    one = group.runs[0]
    record, task = one.record, one.experiment.task
    if one.measure != "return" or not record.get("published"):
        return
    differing = record.get("differences_from_published") or []
    ours = f"; ours differs: {', '.join(differing)}" if differing else ""
    if record["protocol"]["step_size_scales"]:
        known = published(task)
        if known is not None:
            last = len(record["protocol"]["steps"]) - 1
            for method, values in known.returns.items():
                if last < len(values) and method not in ("pretrained", "untrained"):
                    yield method, values[last], f"Published: {known.source}{ours}."
    elif (trial := published_trial(task, len(record["protocol"]["steps"]))) is not None:
        for method, value in trial.returns.items():
            yield method, value, f"Published: {trial.source}{ours}."


def kinds_sheets(groups: Sequence[Group]) -> list[Sheet]:
    """For a benchmark of several kinds of task: the mean of each kind, a column a learner."""
    sheets = []
    for task in dict.fromkeys(group.task for group in groups):
        here = [group for group in groups if group.task == task]
        labels = here[0].runs[0].record.get("labels") or []
        if len(set(labels)) < 2:
            continue
        rows = []
        for kind in dict.fromkeys(labels):
            goals = np.array([label == kind for label in labels])
            cells = [
                text_of(over_runs([scores]), group.runs[0].measure, len(group.runs)) if scores.size else ""
                for group in here
                for scores in [_known(np.stack([one.after[goals] for one in group.runs]))]
            ]
            rows.append([kind, *cells])
        names = ("kind of task", *(group.name for group in here))
        sheets.append(Sheet(f"{task}: by kind of task, {measured(here[0])}", names, rows, text_columns=1))
    return sheets


def _known(scores: Scores) -> Scores:
    """Without the tasks that some run has no score of."""
    return scores[:, ~np.isnan(scores).any(0)]


def improvements(groups: Sequence[Group]) -> Iterator[tuple[Group, Group, Estimate]]:
    """The probability that the first of two learners on a task improves on the second, for every ordered pair."""
    for ours, theirs in permutations(groups, 2):
        if ours.task == theirs.task:
            known = [np.stack([one.after for one in group.runs]) for group in (ours, theirs)]
            common = ~np.isnan(np.concatenate(known)).any(0)
            yield ours, theirs, probability_of_improvement(known[0][:, common], known[1][:, common])


def improvement_sheet(groups: Sequence[Group]) -> list[Sheet]:
    rows = []
    for ours, theirs, estimate in improvements(groups):
        few = min(len(ours.runs), len(theirs.runs)) < 2
        interval = "" if few else f"[{estimate.low:.2f}, {estimate.high:.2f}]"
        rows.append([ours.task, ours.name, theirs.name, f"{estimate.value:.2f}", interval])
    note = (
        "P(X > Y): mean over held-out tasks of the share of pairs of runs in which X has the higher score, ties by "
        "half (Agarwal et al. 2021); 95 % from resampling whole runs of both. 0.5 says nothing; how much better X is, "
        "it does not say."
    )
    headings = ("task", "X", "Y", "P(X > Y)", "95 %")
    return [Sheet("Probability of improvement", headings, rows, (note,), text_columns=3)] if rows else []


def normalized(groups: Sequence[Group]) -> dict[str, list[Scores]]:
    """By learner, a stratum [run, 1] for each of several task distributions: the run's mean, normalized so that the
    untrained policy has 0 and the best learner's mean is 1; without tasks that lack one of them."""
    strata: dict[str, list[Scores]] = {}
    for task in dict.fromkeys(group.task for group in groups):
        here = [group for group in groups if group.task == task]
        untrained = float(np.mean([one.untrained for group in here for one in group.runs]))
        best = max(float(group.scores.mean()) for group in here)
        if not best > untrained:
            continue
        for group in here:
            strata.setdefault(group.name, []).append(
                (group.scores.mean(1, keepdims=True) - untrained) / (best - untrained)
            )
    return {name: found for name, found in strata.items() if len(found) > 1}


def across_sheet(groups: Sequence[Group]) -> list[Sheet]:
    """Learners over several task distributions: here runs and tasks are those of the paper."""
    rows = []
    for name, strata in normalized(groups).items():
        runs = min(map(len, strata))
        estimates = (over_runs(strata), over_runs(strata, iqm=True))
        cells = [f"{e.value:.2f}" + (f" [{e.low:.2f}, {e.high:.2f}]" if runs > 1 else "") for e in estimates]
        rows.append([name, str(len(strata)), str(sum(map(len, strata))), *cells])
    note = (
        "A score is a run's mean over held-out tasks, 0 as the untrained policy earns and 1 as the best learner here "
        "earns on average; tasks weigh equally in the mean, runs in the IQM; runs are resampled within each task."
    )
    headings = ("learner", "task distributions", "runs", "mean", "IQM")
    return [Sheet("Over task distributions, normalized", headings, rows, (note,), text_columns=1)] if rows else []


def as_csv(groups: Sequence[Group], *, by_task: bool) -> str:
    """Unrounded: a row for each statistic of each group, each run's mean, and each held-out task's mean over runs."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["task", "learner", "measure", "statistic", "of", "runs", "value", "low", "high"])
    for group in groups:
        start = [group.task, group.name, measured(group)]
        count = str(len(group.runs))
        for statistic, iqm in (("mean", False), ("iqm", True)):
            writer.writerow([*start, statistic, "all", count, *over_runs([group.scores], iqm=iqm, by_task=by_task)])
        writer.writerow([*start, "mean before", "all", count, *over_runs([group.before])])
        for one in group.runs:
            writer.writerow([*start, "mean", f"seed {one.experiment.seed}", "1", float(np.nanmean(one.after)), "", ""])
        labels = group.runs[0].record.get("labels") or []
        for task, column in enumerate(np.stack([one.after for one in group.runs]).T):
            if not np.isnan(column).any():
                label = f"held-out task {task}" + (f" {labels[task]}" if labels else "")
                writer.writerow([*start, "mean", label, count, *over_runs([column[:, None]])])
    for ours, theirs, estimate in improvements(groups):
        runs = f"{len(ours.runs)}+{len(theirs.runs)}"
        writer.writerow([ours.task, ours.name, measured(ours), "P(X > Y)", theirs.name, runs, *estimate])
    return file.getvalue()
