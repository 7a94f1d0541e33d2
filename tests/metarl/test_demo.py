"""What ``make demo`` says, with a metarl that only pretends to work."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def demo(folder: Path, *, films: bool) -> str:
    """The output of the recipe, whose environment is a folder with a script in it."""
    metarl = folder / "metarl"
    metarl.write_text(f'#!/bin/sh\necho "metarl $*"\n[ "$1" != video ] || exit {0 if films else 2}\n')
    metarl.chmod(0o755)
    command = ["make", "--old-file=setup", "demo", f"BIN={folder}"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run(
        command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True, timeout=120
    ).stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_fault_38_the_demo_names_a_clip_only_where_there_is_one(tmp_path: Path) -> None:
    with_clip, without = demo(tmp_path, films=True), demo(tmp_path, films=False)
    assert "/videos" in with_clip.splitlines()[-1]
    assert "clip: none" in without.splitlines()[-1]
    assert "/videos" not in without.splitlines()[-1]
    for output in (with_clip, without):
        assert "about 4 minutes" in output.splitlines()[0]
        assert "metarl evaluate runs/demo-" in output
