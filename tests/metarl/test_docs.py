"""README and docs: their code runs, their commands are understood, their links lead somewhere."""

import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from metarl import catalogue, presets
from metarl.algorithms import ALGORITHMS
from metarl.cli import train as front
from metarl.cli import tune
from metarl.cli.parse import parse
from metarl.cli.verbs import VERBS, run
from metarl.envs.registry import TASKS
from metarl.extensions import PARTS
from metarl.runs.code import run_code
from metarl.runs.jobs import words_of

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```", re.M | re.S)
LINK = re.compile(r"(?<!`)\[[^\]\n]*(?:\n[^\]\n]*)?\]\((?P<target>[^)\s]+)\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page in a language, without what says why it is not run."""
    found = BLOCK.finditer(page.read_text())
    return [block["code"] for block in found if block["language"] == language and not block["why"]]


def commands(page: Path) -> list[list[str]]:
    lines = [line for code in blocks(page, "sh") for line in code.splitlines()]
    words = [shlex.split(line.strip().removesuffix("&"), comments=True) for line in lines]
    return [command for command in words if command]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that looks like a checkout; what is registered inside is forgotten afterwards."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    registries = (TASKS, ALGORITHMS, gymnasium.registry, presets._KNOWN, *PARTS.values())
    before = [dict(registry) for registry in registries]
    yield tmp_path
    for registry, known in zip(registries, before, strict=True):
        registry.clear()
        registry.update(known)  # type: ignore[arg-type]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, checkout: Path) -> None:
    script = checkout / "page.py"
    script.write_text("\n".join(blocks(page, "python")))
    runpy.run_path(str(script))


COMMANDS = {" ".join(command): command for page in PAGES for command in commands(page)}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_a_command_is_understood(command: list[str], checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, arguments = command[0], command[1:]
    if program == "metarl":
        understand(arguments, monkeypatch)
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    elif program == "pip":
        extra = re.fullmatch(r"\.(?:\[(\w+)\])?", arguments[1])
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert arguments[0] == "install"
        assert extra is not None
        assert extra[1] is None or extra[1] in project["optional-dependencies"]
    else:
        assert program in ("tensorboard", "wait") or (ROOT / program).is_file()


def understand(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses a command line of ``metarl`` as the command does, and stops before the work."""
    verb, rest = arguments[0], [argument.replace("cuda", "cpu") for argument in arguments[1:]]
    if verb == "submit":
        rest, submitted = catalogue.split(verb, rest)
        assert words_of(submitted)
        if submitted[0] == "metarl":
            understand(submitted[1:], monkeypatch)
    if verb not in catalogue.OF_EXPERIMENTS:
        if "--code" in rest:
            run_code(Path(rest[rest.index("--code") + 1]))
        parse(VERBS[verb], rest)
        return
    if "--resume" in rest:
        del rest[rest.index("--resume") : rest.index("--resume") + 2]
    begun = []
    if verb == "tune":
        monkeypatch.setattr(tune, "search_of", lambda options, start, given: begun.append(options.experiment))
        monkeypatch.setattr(tune, "report", lambda *_: None)
        for name in ("work", "work_in", "write_description"):
            monkeypatch.setattr(tune, name, lambda *_, **__: 0)
    monkeypatch.setattr(front, "create_run", lambda experiment, runs, name: runs / (name or "run"))
    monkeypatch.setattr(front, "execute", lambda experiment, run, **_: begun.append(experiment) or 0)
    monkeypatch.setattr(front, "execute_together", lambda experiments, runs: begun.extend(experiments) or 0)
    assert run([verb, *rest], None) == 0
    assert begun[0].task.name == rest[0]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target in (match["target"] for match in LINK.finditer(text)):
        path = target.partition("#")[0]
        assert target.startswith("https://") or not path or (page.parent / path).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_presets_of_train_commands_in_prose_exist(page: Path) -> None:
    known = json.loads(catalogue.FILE.read_text())["tasks"]
    for code in re.findall(r"`metarl train ([^`]+)`", page.read_text()):
        words = code.split()
        options = dict(zip(words[1::2], words[2::2], strict=False))
        if words[0] not in known or "--code" in options:
            continue
        there = known[words[0]]["experiments"].get(options.get("--learner", ""), [])
        assert options.get("--preset") in (None, *there), code


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = (ROOT / "docs" / "index.md").read_text().split()
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= {*listed, "index"}


def test_the_excerpt_of_the_training_loop_is_the_code() -> None:
    page = (ROOT / "docs" / "how_it_works.md").read_text()
    excerpt = next(block["code"] for block in BLOCK.finditer(page) if block["language"] == "python")
    loop = code_of((ROOT / "metarl" / "train.py").read_text())
    for line in excerpt.splitlines():
        assert code_of(line) in loop, line


def code_of(text: str) -> str:
    """Without comments and spaces, so that lines may be broken elsewhere."""
    return re.sub(r"  #[^\n]*|\s", "", text)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_pages_name_no_path_of_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|root|home|tmp)/", page.read_text()), page
