"""What the tests of run folders begin from."""

import shutil
from pathlib import Path

import pytest
from run_checks import TINY, run_quietly

from metarl.runs.folder import create_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations, to be copied."""
    made = create_run(TINY, tmp_path_factory.mktemp("finished"), "run")
    run_quietly(TINY, made)
    return made


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of two iterations."""
    return shutil.copytree(finished, tmp_path / "runs" / "run")
