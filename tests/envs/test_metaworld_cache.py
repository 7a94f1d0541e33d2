"""Meta-World's starts on disk: read where they are what was written, simulated again where they are anything else."""

import hashlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.envs.metaworld import cache, resets
from metarl.envs.metaworld.goals import draw_goals
from metarl.envs.metaworld.sawyer import SAWYER

TASK, VECS = SAWYER["push-v3"], draw_goals(("push-v3",), 0)["push-v3"][:3]
COLUMNS = {"vecs": np.arange(6.0).reshape(3, 2), "qpos": np.arange(12.0).reshape(3, 4), "empty": np.zeros((3, 0))}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bytes]:
    """The random vectors that were simulated, by a process that has an empty cache in ``tmp_path``."""
    found: list[bytes] = []
    simulate = resets.simulate

    def counted(task: Any, vec: Any) -> Any:
        found.append(vec.tobytes())
        return simulate(task, vec)

    monkeypatch.setenv("METARL_CACHE", str(tmp_path))
    monkeypatch.setattr(resets, "simulate", counted)
    monkeypatch.setattr(resets, "_TABLES", {})
    return found


def anew(calls: list[bytes], vecs: Any = VECS) -> tuple[resets.Starts, int]:
    """As another process finds them, and how many of them it simulates."""
    resets._TABLES.clear()
    calls.clear()
    return resets.starts(TASK, vecs), len(calls)


def same(a: resets.Starts, b: resets.Starts) -> bool:
    assert a.episode.keys() == b.episode.keys()
    return torch.equal(a.observed, b.observed) and all(torch.equal(a.state[name], b.state[name]) for name in a.state)


def test_a_second_process_simulates_one_start_to_compare(
    calls: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated, number = anew(calls)
    assert number == 3
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.stat().st_mode & 0o077 == 0

    def fail(*_: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr(inspect, "getsource", fail)
    assert len({resets._path(other) for other in SAWYER.values()}) == 50  # of the code as it was imported
    before = file.stat().st_mtime_ns
    read, number = anew(calls)
    assert (number, file.stat().st_mtime_ns) == (1, before)
    assert same(read, simulated)
    flipped, number = anew(calls, VECS[::-1].copy())
    assert number == 1
    assert torch.equal(flipped.observed, simulated.observed.flip(0))


def test_new_goals_are_added_to_the_file(calls: list[bytes]) -> None:
    assert anew(calls, VECS[:1])[1] == 1
    assert anew(calls, VECS[1:])[1] == 2
    assert anew(calls)[1] == 1


def damages(file: Path) -> dict[str, Callable[[], Any]]:
    content = file.read_bytes()

    def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
        """With the right digest."""

        def damage() -> None:
            columns = dict(cache.read(file))
            change(columns)
            cache.write(file, columns)

        return damage

    def placed(columns: dict[str, Any]) -> None:
        columns["qpos"] = columns["qpos"] + 1e-9

    return {
        "truncated": lambda: file.write_bytes(content[:1000]),
        "empty": lambda: file.write_bytes(b""),
        "flipped": lambda: file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]),
        "longer": lambda: file.write_bytes(content + b"\0" * 8),
        "no column": rewritten(lambda columns: columns.pop("qpos")),
        "no vecs": rewritten(lambda columns: columns.pop("vecs")),
        "no memory": rewritten(lambda columns: columns.pop("episode/target")),
        "another column": rewritten(lambda columns: columns.update(more=np.zeros(3))),
        "fewer rows": rewritten(lambda columns: columns.update(qpos=columns["qpos"][:2])),
        "shorter rows": rewritten(lambda columns: columns.update(qpos=columns["qpos"][:, :2])),
        "one number": rewritten(lambda columns: columns.update(vecs=np.array(3.0))),
        "shorter vecs": rewritten(lambda columns: columns.update(vecs=columns["vecs"][:, :3])),
        "other bits": rewritten(placed),
    }


@pytest.mark.parametrize("kind", damages(Path(__file__)))
def test_fault_22_a_damaged_cache_is_no_cache_and_is_made_again(calls: list[bytes], tmp_path: Path, kind: str) -> None:
    simulated, _ = anew(calls)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    content = file.read_bytes()
    damages(file)[kind]()
    read, number = anew(calls)
    assert number == 3
    assert same(read, simulated)
    assert file.read_bytes() == content
    assert anew(calls)[1] == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]  # nothing is left beside it


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(data=st.data())
def test_fault_22_no_flip_or_cut_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "table"
    cache.write(path, COLUMNS)
    content = bytearray(path.read_bytes())
    found = cache.read(path)
    assert found.keys() == COLUMNS.keys()
    assert all(np.array_equal(found[name], COLUMNS[name]) for name in COLUMNS)
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    assert cache.read(path) is None


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**30) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(header=SHAPES, rest=st.binary(max_size=40))
def test_fault_22_whatever_has_the_right_digest_is_columns_or_nothing(
    header: Any, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile"
    content = json.dumps(header).encode() + b"\n" + rest
    path.write_bytes(hashlib.sha256(content).digest() + content)
    found = cache.read(path)
    assert found is None or sum(column.size for column in found.values()) * 8 == len(rest)


@pytest.mark.parametrize("header", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": [' + b"9" * 5000 + b"]}", b"3"])
def test_fault_22_a_header_that_is_no_json_is_no_file(header: bytes, tmp_path: Path) -> None:
    content = header + b"\n"
    (tmp_path / "x").write_bytes(hashlib.sha256(content).digest() + content)
    assert cache.read(tmp_path / "x") is None


def test_fault_22_only_regular_files_of_a_bounded_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "table"
    cache.write(file, COLUMNS)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(file)
    for name in ("pipe", "folder", "link", "missing"):
        assert cache.read(tmp_path / name) is None
    assert cache.read(file) is not None
    monkeypatch.setattr(cache, "LARGEST", file.stat().st_size - 1)
    assert cache.read(file) is None
    cache.write(tmp_path / "larger", COLUMNS)
    assert not (tmp_path / "larger").exists()


def test_fault_22_what_a_link_points_to_is_not_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("mine")
    link.symlink_to(target)
    cache.write(link, COLUMNS)
    assert target.read_text() == "mine"
    assert not link.is_symlink()
    assert cache.read(link) is not None


@pytest.mark.parametrize("place", ["/dev/null/nowhere", "file", "/dev/full"])
def test_fault_19_a_folder_that_cannot_be_written_costs_time_alone(
    calls: list[bytes], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / place)
    assert anew(calls, VECS[:1])[1] == 1
    assert anew(calls, VECS[:1])[1] == 1
    assert (tmp_path / "file").read_text() == "no folder"


def test_fault_19_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    cache.write(tmp_path / "table", COLUMNS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"METARL_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/metarl"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/metarl"),
        ({"XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/metarl"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/c"}, "/c/.cache/metarl"),  # which the specification ignores
        ({"METARL_CACHE": "", "HOME": "/c"}, "/c/.cache/metarl"),
        ({}, None),
    ],
)
def test_fault_19_the_folder_is_the_users_or_none(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("METARL_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if "HOME" not in variables:
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where passwd has no entry
    assert cache.folder() == (None if expected is None else Path(expected))


PROGRAM = """
import os, pwd, runpy, sys
def nobody(_): raise KeyError("no such user")
pwd.getpwuid = nobody
import torch, metarl.reports.figures
from importlib.util import find_spec
if find_spec("mujoco_warp"):
    import metarl.envs.physics.gpu, warp
    warp.init()
from metarl.envs.metaworld import ML1
env = ML1().make(1, 1, seed=0, physics=sys.argv[1])
env.set_tasks(ML1().sample(1, torch.Generator().manual_seed(0)))
print(tuple(env.reset().shape))
"""


@pytest.mark.parametrize("engine", ["cpu", pytest.param("warp", marks=pytest.mark.slow)])  # compiles all kernels
def test_fault_19_a_user_without_home_and_entry_plays(engine: str, tmp_path: Path) -> None:
    """As in a container: a number for a user, and no variables of its own."""
    if engine == "warp":
        pytest.importorskip("mujoco_warp")
    variables = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, engine],
        cwd=tmp_path, env=variables | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "(1, 1, 39)\n", done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []  # no folder called ~
