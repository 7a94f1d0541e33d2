"""The installed package, used from a folder that has an ``envs`` package and an ``envs.py`` of its own."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("metarl", "envs", "pyproject.toml", "README.md", "LICENSE")
TINY = ["--num-tasks", "2", "--num-envs", "2", "--episodes", "2", "--horizon", "10", "--iterations", "2"]
TINY += ["--eval-tasks", "2", "--num-threads", "1"]
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
ALONE = ("--no-deps", "--no-build-isolation", "--no-cache-dir")  # what it needs is installed where the tests run

pytestmark = pytest.mark.slow


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """What a new Python prints on both streams; it sees no checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The wheel of a checkout, the archive of its sources, and the wheel of that archive."""
    place = tmp_path_factory.mktemp("build")
    checkout = place / "checkout"
    checkout.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, checkout / name)
    assert (checkout / "metarl" / "envs").is_symlink()
    python("-c", "from setuptools.build_meta import build_sdist; build_sdist('../sdist')", cwd=checkout)
    (archive,) = (place / "sdist").iterdir()
    for source, folder in ((checkout, "wheel"), (archive, "again")):
        python(*PIP, "wheel", *ALONE, "--wheel-dir", str(place / folder), str(source), cwd=place)
    (wheel,), (again,) = (list((place / folder).iterdir()) for folder in ("wheel", "again"))
    return wheel, archive, again


@pytest.fixture(scope="module")
def target(wheels: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    python(*PIP, "install", *ALONE, "--no-index", "--target", str(folder), str(wheels[0]), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's project, with environments of its own."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "envs").mkdir()
    (folder / "envs" / "__init__.py").write_text("WHOSE = 'theirs'\n")
    (folder / "envs" / "registry.py").write_text("raise RuntimeError('the wrong registry')\n")
    (folder / "envs.py").write_text("WHOSE = 'shadowed'\n")
    return folder


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def checked_in() -> set[str]:
    """Every file of the package in this checkout, by its installed name."""
    ours = {path.relative_to(ROOT) for path in (ROOT / "metarl").rglob("*") if path.is_file()}
    tasks = {"metarl" / path.relative_to(ROOT) for path in (ROOT / "envs").rglob("*") if path.is_file()}
    return {path.as_posix() for path in ours | tasks if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_nothing_else(wheels: tuple[Path, Path, Path]) -> None:
    wheel, _, again = wheels
    assert files_of(wheel) == checked_in()
    assert {"metarl/catalogue.json", "metarl/py.typed", "metarl/__init__.pyi", "metarl/envs/api.py"} <= files_of(wheel)
    assert files_of(again) == files_of(wheel)


def test_the_sources_have_the_tasks(wheels: tuple[Path, Path, Path]) -> None:
    with tarfile.open(wheels[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        assert not [member for member in archive.getmembers() if member.issym() or member.islnk()]
    assert checked_in() <= names


def test_it_is_used_beside_an_envs_of_ones_own(target: Path, elsewhere: Path) -> None:
    runs = ["--runs", "runs", "--name", "run"]
    said = python(
        "-m", "metarl", "train", "half_cheetah_dir", "--learner", "maml", *TINY, *runs, cwd=elsewhere, path=target
    )
    assert "metarl evaluate runs/run" in said
    options = ["--tasks", "2", "--steps", "1", "--pretrain-iterations", "0"]
    assert "MAML" in python("-m", "metarl", "evaluate", "runs/run", *options, cwd=elsewhere, path=target)
    python("-m", "metarl", "plot", "runs/run", "--out", "curves.png", cwd=elsewhere, path=target)
    assert (elsewhere / "curves.png").stat().st_size > 5000
    assert "half_cheetah_dir" in python("-m", "metarl", "list", cwd=elsewhere, path=target)
    versions = json.loads((elsewhere / "runs" / "run" / "versions.json").read_text())
    assert versions["git_commit"] is None


SCRIPT = """
import sys
import envs, gymnasium, metarl, metarl.envs
env = gymnasium.make("metarl/Navigation-v0")
env.reset(seed=0)
import metarl.cli.train, metarl.films.video
print(envs.WHOSE, *(module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "metarl"))
"""


def test_envs_stays_whose_it_is(target: Path, elsewhere: Path) -> None:
    (elsewhere / "script.py").write_text(SCRIPT)
    whose, *files = python("script.py", cwd=elsewhere, path=target).split()
    assert whose == "theirs"
    assert len(files) > 50
    assert [file for file in files if not file.startswith(str(target))] == []  # none from an editable install


def test_what_is_installed_answers_without_torch(target: Path, elsewhere: Path) -> None:
    source = "import sys; from metarl.cli import main; main(['list']); print('torch' in sys.modules)"
    assert python("-c", source, cwd=elsewhere, path=target).split()[-1] == "False"
