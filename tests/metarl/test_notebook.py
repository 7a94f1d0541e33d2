"""The notebook: its cells use what exists, what it shows is small, and it runs as it is saved."""

import ast
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "quickstart.ipynb"
MOST_BYTES = 200_000


def cells() -> list[Any]:
    return [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]


def names(tree: ast.AST) -> set[str]:
    """Dotted names of the library that a tree uses: what is imported from it, and attributes of ``metarl``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("metarl"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("metarl."):
            found.add(ast.unparse(node))
    return found


def exists(name: str) -> bool:
    value: Any = importlib.import_module("metarl")
    for depth, part in enumerate(name.split(".")[1:], start=2):
        if not hasattr(value, part):
            module = ".".join(name.split(".")[:depth])
            if importlib.util.find_spec(module) is None:
                return False
            importlib.import_module(module)
        value = getattr(value, part)
    return True


def test_its_cells_use_what_exists() -> None:
    used = set().union(*(names(ast.parse(cell.source)) for cell in cells()))
    assert {"metarl.fit", "metarl.load", "metarl.deploy.runner.Policy"} <= used
    assert [name for name in sorted(used) if not exists(name)] == []


@pytest.mark.parametrize("name", ["metarl.fitt", "metarl.presets.makes"])
def test_what_does_not_exist_is_found(name: str) -> None:
    assert not exists(name)


def test_it_is_saved_with_small_outputs_and_without_errors() -> None:
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert [cell.execution_count for cell in cells()] == list(range(1, len(cells()) + 1))
    outputs = [output for cell in cells() for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "display_data"}
    assert "image/png" in outputs[-1].data
    for path in ("/work", "/root", "/home", "/tmp"):
        assert path not in NOTEBOOK.read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the machinery that runs notebooks
def test_it_runs_as_it_is_saved(tmp_path: Path) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, 4)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    text = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert "return on 8 held-out tasks" in text
    apart = float(text.partition("largest difference from torch along the way: ")[2].split()[0])
    assert apart < 1e-5, "positions add up a hundred actions, each of which may be 1e-6 off"
    last = [str(output.get("data", {}).get("text/plain", "")) for output in notebook.cells[3].outputs]
    lines = [line for line in last if line.startswith("iteration")]
    assert len(lines) == 1, "one line that changes"
    assert lines[0].startswith("iteration 8/8")
