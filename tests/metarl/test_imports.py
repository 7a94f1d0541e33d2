"""Imports point one way: experiments -> metarl -> the contract of metarl.envs. Read from the syntax trees alone."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Graph = dict[str, set[str]]

PATHS = {package: sorted((ROOT / package).rglob("*.py")) for package in ("envs", "metarl", "experiments")}
CONTRACT = {f"metarl.envs.{name}" for name in ("api", "fields", "registry", "camera", "lockstep", "warmup")}
LONGEST, LONGEST_TEST = 300, 500  # lines; 250 is the aim


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("metarl", *parts) if parts[0] == "envs" else parts  # installed as metarl.envs
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for paths in PATHS.values() for path in paths}


def imported(tree: ast.AST, known: set[str], *, functions: bool = True) -> set[str]:
    """The modules that a syntax tree imports; ``from a import b`` is ``a.b`` where that is a known module.

    Args:
        functions: count imports inside functions, too.
    """
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
        elif functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= imported(node, known, functions=functions)
    return found


def imports_of(path: Path, *, functions: bool = True) -> set[str]:
    return imported(ast.parse(path.read_text()), set(MODULES), functions=functions)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def on_cycles(graph: Graph) -> set[str]:
    """The modules left when those that import nothing, or nothing but such, are taken away one by one.

    They are the strongly connected components of more than one module (or that import themselves), and what
    imports them: none are left exactly where there is no cycle.
    """
    left = {module: targets & set(graph) for module, targets in graph.items()}
    while free := {module for module, targets in left.items() if not targets}:
        left = {module: targets - free for module, targets in left.items() if module not in free}
    return set(left)


def test_the_packages_are_found() -> None:
    assert {"metarl.envs.api", "metarl.envs.physics.cpu", "metarl", "metarl.cli", "metarl.algorithms.maml"} <= set(
        MODULES
    )
    assert PATHS["experiments"]


def test_every_folder_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {module_name(path) for path in PATHS["metarl"] + PATHS["envs"] if path.name == "__init__.py"}
    assert set(listed) == folders


@pytest.mark.parametrize("path", PATHS["envs"], ids=module_name)
def test_envs_import_nothing_of_metarl_but_themselves(path: Path) -> None:
    own = [module for module in imports_of(path) if within(module, "metarl") or within(module, "experiments")]
    assert [module for module in own if not within(module, "metarl.envs")] == []


@pytest.mark.parametrize("path", PATHS["metarl"], ids=module_name)
def test_metarl_knows_the_contract_of_environments_alone(path: Path) -> None:
    """No task, no engine: whoever implements metarl.envs.api can be learned in."""
    foreign = {m for m in imports_of(path) if within(m, "metarl.envs") or within(m, "experiments")}
    assert foreign <= CONTRACT


def test_rooms_import_one_way() -> None:
    """What a folder imports, and what that imports, never leads back to it."""
    graph: Graph = {}
    for path in PATHS["metarl"]:
        for module in imports_of(path, functions=False) & set(MODULES):
            graph.setdefault(room(module_name(path)), set()).add(room(module))
    rooms = {owner: targets - {owner} for owner, targets in graph.items()}
    assert on_cycles(rooms) == set()


def room(module: str) -> str:
    """The folder of a module; files beside the folders are rooms of their own."""
    parts = module.split(".")
    path = MODULES[module]
    return ".".join(parts if path.name == "__init__.py" else parts[:-1]) if path.parent.name != "metarl" else module


@pytest.mark.parametrize("path", PATHS["metarl"] + PATHS["envs"], ids=module_name)
def test_packages_import_no_tests(path: Path) -> None:
    assert [m for m in imports_of(path) if within(m, "tests") or m.startswith(("test_", "conftest"))] == []


def test_there_are_no_import_cycles() -> None:
    """Imports inside functions do not count: they run later."""
    paths = PATHS["envs"] + PATHS["metarl"]
    graph = {module_name(path): imports_of(path, functions=False) for path in paths}
    assert on_cycles(graph) == set()
    assert sum(len(targets & set(graph)) for targets in graph.values()) > len(graph)  # there was something to find


@pytest.mark.parametrize(
    ("graph", "cycle"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, set()),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, {"a", "b", "c"}),
        ({"a": {"a"}, "b": set()}, {"a"}),
        ({"a": {"torch"}, "b": {"a", "torch"}}, set()),
    ],
)
def test_cycles_are_found(graph: Graph, cycle: set[str]) -> None:
    assert on_cycles(graph) == cycle


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a.b", {"a.b"}),
        ("from a import b", {"a.b"}),  # a known module
        ("from a import c", {"a"}),  # a name of a
        ("if True:\n    import b", {"b"}),
        ("class C:\n    import b", {"b"}),
        ("def f():\n    import b", set()),
    ],
)
def test_imports_are_found(source: str, found: set[str]) -> None:
    assert imported(ast.parse(source), {"a", "a.b", "b"}, functions=False) == found


@pytest.mark.parametrize("path", MODULES.values(), ids=module_name)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_no_test_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_TEST
