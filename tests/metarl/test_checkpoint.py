"""A checkpoint is whole or refused: damage, crashes and full disks; and nothing in it can run code."""

import ast
import io
import os
import pickle
import random
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointError

ROOT = Path(__file__).parents[2]


def content(iteration: int = 3) -> dict[str, Any]:
    """Every kind of value that a run saves."""
    generator = torch.Generator().manual_seed(iteration)
    return {
        "iteration": iteration,
        "learner": {"meta": {"weight": torch.randn(4, 5, generator=generator)}, "optimizer": {}},
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45], dtype=torch.float64),
        "flags": torch.tensor([True, False]),
        "clock": torch.arange(3),
        "empty": torch.empty(0, 2),
        "generator": generator.get_state(),
        "groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "name": "maml", "maximize": False, "none": None}],
    }


def bits(x: Any) -> Any:
    """Compares equal exactly where type, shape and every bit are equal, NaN included."""
    return (x.dtype, tuple(x.shape), x.numpy().tobytes()) if isinstance(x, Tensor) else (type(x), x)


def assert_same(first: Any, second: Any) -> None:
    (leaves, spec), (other_leaves, other_spec) = tree_flatten(first), tree_flatten(second)
    assert spec == other_spec
    assert [bits(x) for x in leaves] == [bits(x) for x in other_leaves]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a good file."""
    path = tmp_path_factory.mktemp("whole") / "whole.ckpt"
    checkpoint.save(path, content())
    return path.read_bytes()


def assert_refused(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path)
    assert str(error.value).startswith(path.name)
    assert "\n" not in str(error.value)


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.ckpt", content())
    assert_same(checkpoint.load(tmp_path / "a.ckpt"), content())
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


# --- damage


def test_every_truncation_is_refused(tmp_path: Path, whole: bytes) -> None:
    """At every length up to the end of the header, and at 200 of the rest."""
    header = checkpoint.HEADER_LENGTH
    lengths = [*range(header + 1), *range(header, len(whole), len(whole) // 200), len(whole) - 1]
    for length in lengths:
        assert_refused(tmp_path / "cut.ckpt", whole[:length])


def test_every_added_byte_is_refused(tmp_path: Path, whole: bytes) -> None:
    for longer in (whole + b"\0", b"\n" + whole, whole + whole):
        assert_refused(tmp_path / "long.ckpt", longer)


def flipped(raw: bytes, position: int) -> bytes:
    """``raw`` with one bit changed."""
    changed = bytearray(raw)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def test_a_flipped_bit_is_refused(tmp_path: Path, whole: bytes) -> None:
    """300 at random; torch.load alone returns other numbers for most of them, without a word."""
    chance = random.Random(0)
    start = 8 * checkpoint.HEADER_LENGTH
    for _ in range(300):
        assert_refused(tmp_path / "flip.ckpt", flipped(whole, chance.randrange(start, 8 * len(whole))))


def test_a_flipped_bit_of_the_header_is_refused(tmp_path: Path, whole: bytes) -> None:
    """All of them: name, version, digest, and the newline."""
    for position in range(8 * checkpoint.HEADER_LENGTH):
        assert_refused(tmp_path / "flip.ckpt", flipped(whole, position))


def test_swapped_halves_are_refused(tmp_path: Path, whole: bytes) -> None:
    """The header of one file over the contents of another."""
    checkpoint.save(tmp_path / "other.ckpt", content(4))
    other = (tmp_path / "other.ckpt").read_bytes()
    head = checkpoint.HEADER_LENGTH
    assert_refused(tmp_path / "mixed.ckpt", whole[:head] + other[head:])


# --- foreign and hostile files


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def sealed(payload: bytes) -> bytes:
    """With a header whose digest is right, as a forger would write it."""
    return checkpoint.MAGIC + sha256(payload).hexdigest().encode() + b"\n" + payload


def test_the_hostile_file_does_what_it_says(tmp_path: Path) -> None:
    """Negative control: a careless load would run it."""
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(Hostile(proof)))
    assert proof.exists()


@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("kind", ["noise", "empty", "torch", "pickle", "hostile pickle", "hostile torch", "class"])
def test_foreign_files_are_refused_without_a_side_effect(tmp_path: Path, kind: str, seal: bool) -> None:
    """One kind of exception, and no code of theirs runs, not even where the digest is right."""
    proof = tmp_path / "proof"
    raw = {
        "noise": random.Random(0).randbytes(4096),
        "empty": b"",
        "torch": torch_bytes(content()),
        "pickle": pickle.dumps({"iteration": 1}, protocol=2),
        "hostile pickle": pickle.dumps(Hostile(proof), protocol=2),
        "hostile torch": torch_bytes({"iteration": 1, "learner": Hostile(proof)}),
        "class": torch_bytes({"path": Path("x")}),
    }[kind]
    if kind == "torch" and seal:
        raw = raw[: len(raw) // 2]  # torn before it was sealed; whole, it would be a checkpoint
    assert_refused(tmp_path / "foreign.ckpt", sealed(raw) if seal else raw)
    assert not proof.exists()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere"), lambda path: None])
def test_what_cannot_be_read_is_refused(tmp_path: Path, make: Any) -> None:
    """A folder, a dangling link, and nothing at all."""
    make(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        checkpoint.load(tmp_path / "a.ckpt")


# --- the newest that is whole


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_two_are_kept(tmp_path: Path) -> None:
    for iteration in (0, 9, 10, 100):
        checkpoint.save_iteration(tmp_path, iteration, content(iteration))
    assert names(tmp_path) == ["iteration_00000010.ckpt", "iteration_00000100.ckpt"]
    assert checkpoint.load_newest(tmp_path, pytest.fail)["iteration"] == 100


def test_a_damaged_one_is_passed_over_with_one_line(tmp_path: Path, whole: bytes) -> None:
    for iteration in (10, 20):
        checkpoint.save_iteration(tmp_path, iteration, content(iteration))
    (tmp_path / "iteration_00000020.ckpt").write_bytes(whole[:-1])
    warnings: list[str] = []
    assert_same(checkpoint.load_newest(tmp_path, warnings.append), content(10))
    assert len(warnings) == 1
    assert "iteration_00000020.ckpt" in warnings[0]
    assert "\n" not in warnings[0]
    # the run goes on from 10 and replaces the damaged file
    checkpoint.save_iteration(tmp_path, 20, content(20))
    assert checkpoint.load_newest(tmp_path, pytest.fail)["iteration"] == 20


def test_two_damaged_ones_are_the_end(tmp_path: Path) -> None:
    for iteration in (10, 20):
        (tmp_path / f"iteration_{iteration:08d}.ckpt").write_bytes(b"")
    warnings: list[str] = []
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        checkpoint.load_newest(tmp_path, warnings.append)
    assert len(warnings) == 2


def test_there_may_be_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="no usable checkpoint"):
            checkpoint.load_newest(directory, pytest.fail)


# --- crashes and full disks


def test_what_a_killed_writer_left_is_ignored_and_written_over(tmp_path: Path, whole: bytes) -> None:
    checkpoint.save_iteration(tmp_path, 10, content(10))
    (tmp_path / "iteration_00000020.tmp").write_bytes(whole[: len(whole) // 2])
    assert checkpoint.load_newest(tmp_path, pytest.fail)["iteration"] == 10
    checkpoint.save_iteration(tmp_path, 20, content(20))
    assert names(tmp_path) == ["iteration_00000010.ckpt", "iteration_00000020.ckpt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_before_the_rename_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Also where the file that could not be written is the one that is there already."""
    for iteration in (10, 20):
        checkpoint.save_iteration(tmp_path, iteration, content(iteration))

    def crash(*arguments: Any) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        for iteration in (20, 30):
            with pytest.raises(KeyboardInterrupt):
                checkpoint.save_iteration(tmp_path, iteration, content(0))
    assert_same(checkpoint.load_newest(tmp_path, pytest.fail), content(20))
    assert_same(checkpoint.load(tmp_path / "iteration_00000010.ckpt"), content(10))


def test_contents_reach_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the file, rename, fsync of the folder: a power cut cannot leave a name without contents."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        calls.append("fsync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def spy_replace(source: Path, target: Path) -> None:
        calls.append(f"{source.name} -> {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    checkpoint.save(tmp_path / "a.ckpt", content())
    assert calls == ["fsync a.tmp", "a.tmp -> a.ckpt", f"fsync {tmp_path.name}"]


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from metarl.runs import checkpoint

directory = Path(sys.argv[1])
checkpoint.save_iteration(directory, 10, {"iteration": 10})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.save_iteration(directory, 20, {"iteration": 20, "weight": torch.zeros(100_000)})
except OSError as error:
    sys.exit(f"refused: {error.strerror}")
"""


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """Files of more than 20 kB cannot be written; the new one has 400 kB."""
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.stderr == "refused: File too large\n"
    assert process.returncode == 1
    assert checkpoint.load_newest(tmp_path, pytest.fail) == {"iteration": 10}


# --- no code from files, anywhere in the packages

FORBIDDEN_CALLS = {
    *("eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "marshal.loads"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load", "dill.loads"),
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}


def dangers(source: str) -> list[str]:
    """Everything in a module that could run what a file or a name says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in FORBIDDEN_CALLS or options.get("shell", "False") != "False":
                found.append(name)
            if name.endswith("torch.load") and options.get("weights_only") != "True":
                found.append(name)
            if options.get("allow_pickle", "False") != "False":
                found.append(name)
    return found


SOURCES = sorted(path for package in ("metarl", "envs") for path in (ROOT / package).rglob("*.py"))


SENDING = {
    "envs/gymnasium_worlds.py": ["cloudpickle"],  # a class to worker processes of its own; it loads nothing
    "envs/physics/kernels.py": ["pickle", "pickle.loads"],  # tasks to a process of its own, through a pipe and no file
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_a_file_says(path: Path) -> None:
    assert dangers(path.read_text()) == SENDING.get(str(path.relative_to(ROOT)), [])


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "pickle.loads(x)",
        "eval('1')",
        "exec(code)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "yaml.load(text)",
        "subprocess.run(command, shell=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert dangers(source)


def test_the_search_spares_what_is_safe() -> None:
    assert not dangers("torch.load(path, weights_only=True); network.eval(); np.load(path); run(command, shell=False)")
