"""Random command lines over all verbs, tasks and learners end in a run, a sentence or usage, never in a traceback."""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarl import catalogue, cli, presets
from metarl.algorithms import ALGORITHMS, learner_name
from metarl.cli import evaluate, train, verbs
from metarl.runs.folder import create_run

KNOWN = json.loads(catalogue.FILE.read_text())  # what describe() says, as test_cli_front.py checks
LEARNERS = [learner_name(cls) for cls in ALGORITHMS.values()]
RUNS = {"run": ("navigation", "maml"), "remembers": ("bandit", "rl2"), "arms": ("half_cheetah_dir", "promp")}
WORDS = [
    "",
    " ",
    "-",
    "--",
    "-h",
    "-x",
    "---",
    "--=",
    "=",
    "-1",
    "none",
    "None",
    "True",
    "x",
    "ü",
    "[/bold]",
    "a\nb",
    "%s",
]
NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "-3",
    "0.5",
    "1e-3",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "2147483648",
    "99999999999999999999",
    "1_0",
]
NAMES = [
    "cpu",
    "cuda",
    "cuda:7",
    "warp",
    "auto",
    "run",
    "tuned",
    "maml2017",
    "v5",
    "push-v3",
    "nowhere",
    "/proc/x",
    "a.py",
]
CHOICES = ["trpo", "ppo", "gradient", "gru", "attention", "fomaml", "tanh", "linear-feature-baseline", "0.1 0.2"]
VALUES = st.sampled_from([*WORDS, *NUMBERS, *NAMES, *CHOICES, *KNOWN["tasks"], *LEARNERS])
OF_RUNS = ("evaluate", "plot", "video", "report", "watch", "export", "track")
ARBITRARY = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def options_of(verb: str, task: str, learner: str) -> list[str]:
    found = dict(KNOWN["verbs"].get(verb, {}))
    if verb == "train":
        found |= KNOWN["tasks"][task]["options"] | KNOWN["learners"][learner]["options"]
    return sorted(found)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A verb, mostly what it needs, and up to four options with values, some of them spoilt."""
    verb = draw(st.sampled_from([*KNOWN["verbs"], *["train"] * 16, "evaluate", "tran"]))
    task, learner = draw(st.sampled_from(sorted(KNOWN["tasks"]))), draw(st.sampled_from(LEARNERS))
    words: list[list[str]] = []
    if verb == "train" and draw(st.integers(0, 9)):
        words += (
            [[task], ["--learner", learner]]
            if draw(st.integers(0, 3))
            else [["--resume", draw(st.sampled_from([*RUNS, "no"]))]]
        )
    if verb in OF_RUNS and draw(st.integers(0, 9)):
        words.append([draw(st.sampled_from([*RUNS, "no"]))])
    names = st.sampled_from(options_of(verb, task, learner) or ["--help"])
    for _ in range(draw(st.integers(0, 4))):
        name, value = draw(names), draw(VALUES if draw(st.integers(0, 9)) else ARBITRARY)
        kind = draw(st.integers(0, 11))
        if kind == 0:
            name = name.replace("-", "_").replace("__", "--", 1)
        if kind == 1:
            name = draw(st.sampled_from([name[:-1], name + "s", name[1:], name + ".x", name.upper()]))
        words.append([[name, value], [f"{name}={value}"], [name], [value], [name, value, value]][max(0, kind - 7)])
    order = draw(st.permutations(words)) if draw(st.booleans()) else words
    return [verb, *(word for group in order for word in group)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with runs in which nothing is trained, tested, drawn or filmed, nor a machine measured."""
    folder = tmp_path_factory.mktemp("place")
    for name, (task, learner) in RUNS.items():
        create_run(presets.make(task, learner), folder, name)
    (folder / "a.py").write_text("VALUE = 1\n")
    before = os.getcwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "execute", lambda experiment, run: 0)
        patch.setattr(train, "create_run", lambda experiment, root, name: root / str(name))
        patch.setattr(verbs, "prepare_process", lambda num_threads: None)
        patch.setattr(evaluate, "evaluate_run", nothing)
        patch.setattr(verbs, "learning_curves", nothing)
        patch.setattr(verbs, "render_run", lambda *arguments, **options: [])
        patch.setattr(verbs, "physics_rate", lambda: 1.0)
        patch.setattr(verbs, "tune", lambda arguments, task: 0)
        for verb in ("report", "watch", "export", "track", "submit", "probe"):
            patch.setattr(verbs.VERBS[verb], "__call__", nothing)
        yield folder
    os.chdir(before)


def nothing(*arguments: Any, **options: Any) -> None:
    """In place of work."""


def ends_well(arguments: list[str]) -> str:
    """How a command line ends: run, usage or refused; anything else is an error of the test."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as exit_request:
            code = exit_request.code
    said = err.getvalue()
    if code in (0, None):
        assert said == "", arguments
        return "usage" if "usage: " in out.getvalue() else "run"
    assert code == 2, arguments
    assert said.startswith("error: "), arguments
    assert len(said.splitlines()) == 1, (arguments, said)
    return "refused"


ENDS: dict[str, int] = {}


def check(arguments: list[str]) -> None:
    end = ends_well(arguments)
    ENDS[end] = ENDS.get(end, 0) + 1


COMMON = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def test_random_command_lines_end_in_a_run_a_sentence_or_usage(place: Path) -> None:
    ENDS.clear()
    settings(max_examples=60, **COMMON)(given(command_lines())(check))()
    assert set(ENDS) == {"run", "usage", "refused"}, ENDS
    assert ENDS["run"] > 4, ENDS


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_random_command_lines_end_in_a_run_a_sentence_or_usage(place: Path) -> None:
    settings(max_examples=1000, **COMMON)(given(command_lines())(check))()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "navigation", "--outer"],
        ["train", "navigation", "--name"],
        ["train", "navigation", "--"],
        ["train", "navigation", "-x"],
        ["train", "--resume", ""],
        ["train", "--resume", "run", "--device"],
        ["train", "", "--learner", ""],
        ["evaluate", "run", "--steps", "99999999999999999999999.5"],
        ["plot", "run", "--tag"],
        [""],
        ["-x"],
        ["list", "x"],
        ["doctor", "x"],
        ["list", "--code", ""],
        ["list", "--code"],
    ],
    ids=" ".join,
)
def test_edges_end_in_a_sentence(arguments: list[str], place: Path) -> None:
    assert ends_well(arguments) in ("refused", "run")
