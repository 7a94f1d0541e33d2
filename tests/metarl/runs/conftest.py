"""What the tests of run folders begin from."""

from pathlib import Path

import pytest
from run_checks import TINY, run_quietly

from metarl.runs.folder import create_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two iterations."""
    made = create_run(TINY, tmp_path / "runs", "run")
    run_quietly(TINY, made)
    return made
