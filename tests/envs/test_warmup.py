"""Kernels that are compiled before they are needed are those that are needed: as Warp itself, and an H100, have it."""

import copy
import hashlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h100_kernels
import pytest
import torch
import warp as wp
import warp._src.build
import warp._src.context as context

from metarl import cli
from metarl.envs import physics, warmup
from metarl.envs.fields import BadField
from metarl.envs.physics import kernels
from metarl.envs.physics.kernels import Variant, first_steps, trace
from metarl.envs.registry import find_preset
from metarl.envs.warmup import progress_line, warm_if_cold, warm_up
from metarl.presets import make
from metarl.runs.process import EXIT_BAD_INPUT

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
CARTPOLE, CHEETAH = find_preset("cartpole_mass"), find_preset("half_cheetah_dir")
SMALL = "_next_time_builder"


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in test_warp.py, which shares the cache."""
    monkeypatch.setattr(wp.config, "optimization_level", 0)


def traced(*names: str, on_cuda: bool = True, physics: str = "warp") -> list[Variant]:
    """Without a trace in Warp."""
    with pytest.MonkeyPatch.context() as patch:
        tasks = [find_preset(name) for name in names]
        return trace(tasks, on_cuda=on_cuda, physics=physics, replace=patch.setattr)


def loaded(task: str) -> list[Variant]:
    """What a task's first steps load, on Warp's CPU device, for real."""
    found: dict[Variant, None] = {}
    really = context.Module.load

    def load(module: Any, device: Any, block_dim: int | None = None, *rest: Any, **options: Any) -> Any:
        found.setdefault(Variant(module, module.options["block_dim"] if block_dim is None else block_dim))
        return really(module, device, block_dim, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context.Module, "load", load)
        first_steps(find_preset(task))
    return list(found)


# --- which kernels


def test_what_is_traced_is_what_the_first_steps_load() -> None:
    """The very modules, by hashes of code and options; a GPU's are those in other block sizes, and some more blocks."""
    real, pretended, on_cuda = loaded("cartpole_mass"), traced("cartpole_mass", on_cuda=False), traced("cartpole_mass")
    assert {v.name for v in real} == {v.name for v in pretended}
    assert len(real) > 20
    assert {v.block_dim for v in real} == {1}
    assert {v.block_dim for v in on_cuda} == {32, 64, 128, 256}
    assert {v.module.name for v in on_cuda} == {v.module.name for v in real}
    physics.make_physics(CARTPOLE.model_of(CARTPOLE.sample(1, torch.Generator())[0]), 2, engine="warp").step(1)


@pytest.mark.parametrize(
    "task", ["half_cheetah_dir", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ant_dir", "ml1", "ml10"))]
)
def test_the_names_are_those_that_an_h100_ran(task: str) -> None:
    """Kernels with hashes of their code, as a profiler saw them there."""
    if (wp.config.version, kernels.gpu.mjw.__version__) != h100_kernels.VERSIONS:
        pytest.skip("what the card ran was of other versions")
    found = {
        kernel.get_mangled_name(kernel_hash=key) + "_cuda_kernel_forward"
        for variant in traced(task)
        for key, kernel in _hashed(variant).unique_kernels.items()
    }
    ran = h100_kernels.RAN[task]
    assert [name for name in ran if not any(one.startswith(name) for one in found)] == []
    assert len(ran) >= 13


@pytest.mark.slow
def test_the_deterministic_kernels_are_others() -> None:
    """14 of 49, as many as differed between the names that an H100 looked up in each mode."""
    ordinary = {v.name for v in traced("half_cheetah_dir")}
    torch.use_deterministic_algorithms(True)
    try:
        deterministic = {v.name for v in traced("half_cheetah_dir")}
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(ordinary) == len(deterministic) == 49
    assert len(ordinary - deterministic) == 14


@pytest.mark.slow
def test_culled_collision_needs_one_kernel_more() -> None:
    """Those of convex collision are the library's own."""
    library, culled = ({v.name for v in traced("ml1", physics=physics)} for physics in ("warp", "warp-culled"))
    assert library < culled
    (more,) = culled - library
    assert "sort_candidates" in more


def _hashed(variant: Variant) -> Any:
    assert variant.name
    return variant.module.hashers[variant.block_dim]


# --- the pool


class Pretended(Variant):
    """A kernel whose compilation is an action; ``module`` is name, cost and action."""

    name = property(lambda self: self.module[0])
    cost = property(lambda self: self.module[1])

    def compile(self, arch: int | None) -> None:
        self.module[2]()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise ValueError("no such type")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(("action", "said"), [(die, "terminated abruptly"), (fail, "b for one: no such type")])
def test_what_was_compiled_before_a_failure_stays(tmp_path: Path, action: Callable[[], object], said: str) -> None:
    jobs = [Pretended(("b", 2.0, action), 1), Pretended(("a", 3.0, (tmp_path / "a").touch), 1)]
    names = kernels.compiled(jobs, None, 1)
    assert next(names) == "a"
    with pytest.raises(RuntimeError, match=said):
        next(names)
    assert (tmp_path / "a").exists()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_closed_it_begins_no_more(tmp_path: Path) -> None:
    """As where the process that asked was killed: nobody hears what is done, which ends it."""
    paths = [tmp_path / str(i) for i in range(9)]
    names = kernels.compiled([Pretended((path.name, 1.0, path.touch), 1) for path in paths], None, 1)
    next(names)
    names.close()
    done = sum(path.exists() for path in paths)
    assert 1 <= done < 9  # some were with the worker already


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_each_is_compiled_once_and_warps_own_loader_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a card that is not here. A second call does nothing; one after a cut between two files mends it."""
    monkeypatch.setattr(wp.config, "kernel_cache_dir", str(tmp_path))
    (variant,) = (v for v in traced("cartpole_mass") if SMALL in v.name)
    binary, metadata = variant.files(90)
    monkeypatch.setattr(kernels, "trace", lambda tasks, **_: [variant])
    request = kernels.packed([CARTPOLE]) | {
        "arch": 90,
        "deterministic": False,
        "physics": "warp",
        "workers": 2,
        "only": "",
    }

    def lines() -> list[tuple[int, int, int]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
        kernels.main()
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [(line["done"], line["of"], line["all"]) for line in found]

    assert lines() == [(0, 1, 1), (1, 1, 1)]
    assert binary.name.endswith(".sm90.cubin")
    assert binary.read_bytes()[:4] == b"\x7fELF"
    made = binary.stat().st_mtime_ns
    assert lines() == [(0, 0, 1)]
    assert read_by_the_loader(variant) == str(binary)
    metadata.unlink()
    assert lines() == [(0, 1, 1), (1, 1, 1)]
    assert json.loads(metadata.read_text())
    assert binary.stat().st_mtime_ns == made


def read_by_the_loader(variant: Variant) -> str:
    """What Warp's code loads for a device of architecture 90, where it compiles nothing."""
    card = object.__new__(context.Device)
    vars(card).update(runtime=context.runtime, is_cuda=True, is_cpu=False, alias="cuda:0", ordinal=0, arch=90)
    vars(card).update(is_cubin_supported=True, _context=1, is_primary=True)
    read: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warp._src.build, "load_cuda", lambda path, device: read.append(path))
        patch.setattr(context.Module, "_run_codegen", None)
        with pytest.raises(Exception, match="Failed to load CUDA module"):
            variant.module.load(card, variant.block_dim)
    return read[0]


def test_a_task_of_a_users_file_crosses_to_another_process(tmp_path: Path) -> None:
    file = tmp_path / "code_of_a_user_own.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir\n"
        "@dataclass(frozen=True)\nclass Own(HalfCheetahDir):\n    angle: float = 2.0\n"
    )
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    request = kernels.packed([module.Own(angle=3.0)])
    del sys.modules[file.stem]  # as another process finds it
    (own,) = kernels.unpacked(json.loads(json.dumps(request)))
    assert own.angle == 3
    module.Own.__module__ = "__main__"
    with pytest.raises(BadField, match="task is Own of a script: define it in a module"):
        kernels.packed([module.Own()])


# --- what is said


def test_progress_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [(0, 2, 60), (1, 2, 30), (2, 2, 0)]
    lines = [json.dumps({"done": done, "of": of, "all": 5, "seconds": s}) for done, of, s in counts]
    monkeypatch.setattr(warmup, "_lines_of", lambda request, folder: (line for line in lines))
    said: list[str] = []
    assert warm_up([CARTPOLE], arch="sm_90", out=tmp_path, say=said.append) == (tmp_path, 5, 2)
    assert said[1:] == [
        "compiling kernels 0/2, about 60 s",
        "compiling kernels 1/2, about 30 s",
        "compiling kernels 2/2",
    ]


def test_where_no_terminal_is_few_lines_are_printed() -> None:
    file = io.StringIO()
    say = progress_line(file)
    for done in range(100):
        say(f"compiling kernels {done}/99, about 3 s")
    assert file.getvalue().splitlines() == ["compiling kernels 0/99, about 3 s", "compiling kernels 99/99, about 3 s"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("half_cheetah --arch sm_90", "use one of"),
        ("navigation --arch sm_90", "task is 'navigation': it has no physics, so no kernels"),
        ("cartpole_mass --arch h100", "arch is 'h100': Warp .* compiles for .*sm_90"),
        ("cartpole_mass --arch sm_9", "arch is 'sm_9'"),
        ("cartpole_mass --device gpu", "device is 'gpu': use cuda, cuda:0 or cpu"),
        ("cartpole_mass --device cuda:99", r"device is 'cuda:99': torch sees .* \(--arch sm_90\)"),
        ("cartpole_mass --arch sm_90 --workers -1", "workers is -1"),
        ("--arch sm_90", "no task is named"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    arguments: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def begin(*_: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(warmup, "_lines_of", begin)
    with pytest.raises(SystemExit) as ended:
        cli.main(["warmup", *arguments.split()])
    assert ended.value.code == EXIT_BAD_INPUT
    (sentence,) = capsys.readouterr().err.splitlines()
    assert re.search(said, sentence)


# --- by itself


def test_a_first_run_on_a_gpu_warms_the_cache_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is told and costs nothing else; another mode is another cache, another horizon is not."""
    calls: list[bool] = []

    def pretended(tasks: list[Any], *, deterministic: bool, **_: object) -> None:
        calls.append(deterministic)
        if len(calls) == 1:
            raise RuntimeError("no compiler")

    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path))
    monkeypatch.setattr(warmup, "warm_up", pretended)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    said: list[str] = []
    for task, deterministic in [(CHEETAH, False)] * 3 + [
        (CHEETAH, True),
        (find_preset("half_cheetah_dir", horizon=7), True),
    ]:
        warm_if_cold(task, device="cuda", deterministic=deterministic, say=said.append)
    assert calls == [False, False, True]
    assert said == ["kernels are compiled as they are needed: no compiler"]
    warm_if_cold(find_preset("navigation"), device="cuda", deterministic=False, say=said.append)
    assert len(calls) == 3


def test_runs_on_a_gpu_ask_for_it_and_others_pay_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("metarl.runs.experiment.warm_if_cold", lambda task, *, device, **_: asked.append(device))
    experiment = copy.copy(make("navigation", "maml"))  # the preset itself is everyone's
    env = experiment.make_env(2, 2, stream="resets")
    assert asked == []
    object.__setattr__(experiment, "device", "cuda:1")
    monkeypatch.setattr(type(experiment.task), "make", lambda self, *_, **__: env)
    experiment.make_env(2, 2, stream="resets")
    assert asked == ["cuda:1"]


# --- whole, in processes of their own


def files_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".cubin", ".o")}


@pytest.mark.slow
def test_a_warm_up_that_is_cut_is_taken_up(tmp_path: Path) -> None:
    request = kernels.packed([CARTPOLE]) | {
        "arch": 90,
        "deterministic": False,
        "physics": "warp",
        "workers": 2,
        "only": "_gra",
    }
    lines = warmup._lines_of(request, tmp_path)
    first = json.loads(next(lines))
    next(lines)
    lines.close()  # type: ignore[attr-defined]
    before = files_of(tmp_path)
    assert 1 <= len(before) < first["of"]
    found = warm_up([CARTPOLE], arch="sm_90", only="_gra", workers=2, out=tmp_path, say=lambda _: None)
    assert found.compiled < first["of"] == found.kernels == len(files_of(tmp_path))
    assert before.items() <= files_of(tmp_path).items()  # not compiled again
    again: list[str] = []
    assert warm_up([CARTPOLE], arch="sm_90", only="_gra", out=tmp_path, say=again.append).compiled == 0
    assert len(again) == 1


SOURCES = """
import hashlib, json, sys, warp._src.context as context
from metarl.envs.physics.kernels import first_steps
from metarl.envs.registry import find_preset
import metarl.envs
loaded, load = {}, context.Module.load
context.Module.load = lambda module, *rest, **options: loaded.setdefault(module, load(module, *rest, **options))
first_steps(find_preset("half_cheetah_dir"))
found = {}
for name, block in json.load(sys.stdin):
    module, = (m for m in loaded if m.name == name)
    module.get_module_hash(block)
    source = module._run_codegen(module.resolved_options[block] | {"output_arch": 90}, False)[0]
    found[module.get_module_identifier(block)] = hashlib.sha256(source.encode()).hexdigest()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_half_cheetahs_kernels_are_those_of_a_process_in_which_nothing_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them for sm_90, and the source that each was compiled from, which a false ``warp`` would change."""
    monkeypatch.setattr(wp.config, "optimization_level", None)  # the default, as in the processes
    found = warm_up([CHEETAH], arch="sm_90", workers=2, out=tmp_path, say=lambda _: None)
    sources = {path.stem: path for path in tmp_path.rglob("*.cu")}
    assert found.compiled == found.kernels == len(sources) == len(files_of(tmp_path)) >= 45
    variants = [(v.module.name, v.block_dim) for v in traced("half_cheetah_dir")]
    where = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", SOURCES]
    real = subprocess.run(command, env=where, input=json.dumps(variants), capture_output=True, text=True, check=False)
    assert real.returncode == 0, real.stderr
    expected = json.loads(real.stdout.splitlines()[-1])
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sources.items()} == expected
    assert warm_up([CHEETAH], arch="sm_90", out=tmp_path, say=lambda _: None).compiled == 0
