"""Which Warp modules the worlds of tasks launch, found without a launch, and their compilation side by side.

:func:`main` reads a request from standard input and prints lines of JSON. It is a process of its own
(:mod:`metarl.envs.warmup` starts it), for it takes Warp apart: to load a module notes it, to launch a kernel does
nothing, and ``mujoco_warp`` is told that it is on a GPU. No GPU may be visible to it: the processes that it forks could
not use one.

Trap: a stand-in for ``warp`` among ``mujoco_warp``'s globals gives modules of the right names and wrong code (launch
bounds of one dimension where two belong), which Warp would load. So single functions of Warp are replaced, never the
module; tests compare sources with those of a process in which nothing is replaced.
"""

import base64
import contextlib
import importlib.util
import json
import multiprocessing
import pickle
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import torch
import warp as wp
import warp._src.context as context

from metarl.envs.fields import BadField
from metarl.envs.physics import gpu
from metarl.envs.registry import TaskDistribution

CUDA_BLOCK = 256  # threads of a block, where a launch does not say
MULTIPROCESSORS = 132  # an H100's; they size launches, and a kernel's code in deterministic mode alone
# CPU seconds that modules take whose names contain these, the first that fits; others take 1.3
COSTS = {"ccd_kernel": 70.0, "cholesky": 5.0, "sensor": 5.0, "forward": 5.0, "smooth": 4.0, "primitive": 4.0}
Replace = Callable[[Any, str, Any], None]


class Variant(NamedTuple):
    """What Warp compiles and loads at a time."""

    module: Any
    block_dim: int

    @property
    def name(self) -> str:
        """Of its folder in Warp's cache; with a hash of code, options and block size."""
        return str(self.module.get_module_identifier(self.block_dim))

    @property
    def cost(self) -> float:
        return next((seconds for part, seconds in COSTS.items() if part in self.name), 1.3)

    def files(self, arch: int | None) -> tuple[Path, Path]:
        """Where Warp's loader looks for binary and metadata; ``arch`` None: those of Warp's CPU device."""
        device = wp.get_device("cpu") if arch is None else None
        output = self.module._get_compile_output_name(device, arch, use_ptx=False, block_dim=self.block_dim)
        folder = Path(wp.config.kernel_cache_dir) / self.name
        return folder / output, folder / self.module._get_meta_name(self.block_dim)

    def compile(self, arch: int | None) -> None:
        """Into Warp's cache, by renaming: what is cut leaves nothing that Warp would load."""
        self.module.get_module_hash(self.block_dim)
        where = {"device": wp.get_device("cpu")} if arch is None else {"output_arch": arch, "use_ptx": False}
        self.module._compile(**where, options=self.module.resolved_options[self.block_dim])


def trace(
    tasks: Sequence[TaskDistribution], *, on_cuda: bool, physics: str = "warp", replace: Replace = setattr
) -> list[Variant]:
    """What the first steps of these tasks' worlds load, each variant once.

    Args:
        on_cuda: as on a GPU; else as on Warp's CPU device.
        physics: ``warp``, or another of its kind in ``metarl.envs.api.ENGINES``.
        replace: how functions of Warp are replaced, for good by default.
    """
    found: dict[Variant, None] = {}

    def block(device: Any, block_dim: int | None) -> int:
        return 1 if not on_cuda else CUDA_BLOCK if block_dim is None or block_dim <= 0 else int(block_dim)

    def load(module: Any, device: Any, block_dim: int | None = None, *_: Any, **__: Any) -> None:
        found.setdefault(Variant(module, module.options["block_dim"] if block_dim is None else block_dim))

    replace(context.Module, "load", load)  # it returns no executable, so that wp.launch returns
    replace(context, "_resolve_launch_block_dim", block)
    replace(gpu.WarpPhysics, "_launch", lambda self, name, work: work())
    replace(wp, "capture_while", once)  # no kernel ends a loop
    replace(wp, "capture_if", branches)
    if on_cuda:
        _pretend_cuda(load, replace)
    for task in tasks:
        first_steps(task, physics)
    return list({variant.name: variant for variant in found}.values())


def once(condition: Any, while_body: Callable[..., None], **options: Any) -> None:
    while_body(**{name: value for name, value in options.items() if name not in ("stream", "graph")})


def branches(condition: Any, on_true: Any = None, on_false: Any = None, **options: Any) -> None:
    for branch in (on_true, on_false):
        if branch is not None:
            once(condition, branch, **options)


def _pretend_cuda(load: Callable[..., None], replace: Replace) -> None:
    """Answers ``mujoco_warp``, and it alone, as a GPU would."""

    class Pretended:
        is_cuda, is_cpu, sm_count = True, False, MULTIPROCESSORS

        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    real_device = wp.get_device

    def get_device(*arguments: Any) -> Any:
        device, caller = real_device(*arguments), sys._getframe(1).f_globals.get("__name__", "")
        return Pretended(device) if caller.startswith("mujoco_warp.") else device

    def suggested(kernel: Any, device: Any = None) -> tuple[int, int]:
        load(kernel.module, device)
        return CUDA_BLOCK, 8 * MULTIPROCESSORS

    def ccd_grid(kernel: Any, most: int, device: Any) -> int:
        suggested(kernel)
        return max(1, most)

    import mujoco_warp._src.collision_convex as convex

    replace(wp, "get_device", get_device)
    replace(wp, "is_conditional_graph_supported", lambda: True)
    replace(wp, "get_suggested_block_size", suggested)
    replace(convex, "_ccd_grid_size", ccd_grid)


def first_steps(task: TaskDistribution, physics: str = "warp") -> None:
    """Builds two worlds of each kind of task, held-out ones included, and goes through a reset and two steps."""
    many = task.sample(100, torch.Generator().manual_seed(0))
    if task.num_test_tasks and (published := task.published_tasks(task.num_test_tasks)) is not None:
        many = torch.cat([many, published])
    first = {label: i for i, label in reversed(list(enumerate(task.labels(many))))}
    sampled = many[sorted(first.values()) or [0]]
    env = task.make(len(sampled), 2, seed=0, device="cpu", physics=physics, num_threads=1)
    env.set_tasks(sampled)
    env.reset()
    for _ in range(2):
        env.step(torch.zeros(len(sampled), 2, task.spec.action_dim))


def compiled(variants: Sequence[Variant], arch: int | None, workers: int) -> Generator[str, None, None]:
    """Compiles variants in forked processes, the longest first; names each as it is done. Closed, it begins no more.

    Raises:
        RuntimeError: one does not compile, or a process was killed; the others are in the cache.
    """
    global _JOB
    _JOB = variants, arch
    order = sorted(range(len(variants)), key=lambda i: -variants[i].cost)
    failed: dict[int, BaseException] = {}
    pool = ProcessPoolExecutor(min(workers, len(order)), multiprocessing.get_context("fork"))
    try:
        jobs = {pool.submit(_compile, i): i for i in order}
        for job in as_completed(jobs):
            if (error := job.exception()) is not None:
                failed[jobs[job]] = error
            else:
                yield variants[jobs[job]].name
    finally:
        pool.shutdown(cancel_futures=True)  # where nobody hears of the rest any more
    for i, error in failed.items():
        raise RuntimeError(f"{len(failed)} did not compile, {variants[i].name} for one: {error}") from error


_JOB: tuple[Sequence[Variant], int | None] = ((), None)  # of forked processes: modules cannot be sent to one


def _compile(i: int) -> None:
    variants, arch = _JOB
    variants[i].compile(arch)


def packed(tasks: Sequence[TaskDistribution]) -> dict[str, Any]:
    """Tasks as text, with the files of those modules that cannot be imported by name, for :func:`unpacked`.

    Raises:
        BadField: a task's class is defined in the script that runs, which would run once more.
    """
    for task in tasks:
        if type(task).__module__ == "__main__":
            raise BadField(f"task is {type(task).__name__} of a script: define it in a module that the script imports")
    modules = {cls.__module__: sys.modules[cls.__module__] for task in tasks for cls in type(task).__mro__[:-1]}
    files = {name: getattr(module, "__file__", None) for name, module in modules.items()}
    own = {name: file for name, file in files.items() if file and not name.startswith("metarl.")}
    return {"files": own, "tasks": base64.b64encode(pickle.dumps(list(tasks))).decode()}


def unpacked(request: Mapping[str, Any]) -> list[TaskDistribution]:
    """The inverse of :func:`packed`, of this program's own making, in another process."""
    for name, file in request["files"].items():
        if importlib.util.find_spec(name) is None:
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None
            assert spec.loader is not None
            sys.path.insert(0, str(Path(file).parent))
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
    tasks: list[TaskDistribution] = pickle.loads(base64.b64decode(request["tasks"]))
    return tasks


def main() -> None:
    """A request is :func:`packed` tasks with ``arch`` (90, or null), ``deterministic``, ``physics``, ``workers`` and
    ``only`` (part of a module's name). A line is printed before the work and after each module: how many are ``done``
    ``of`` those that were missing, of ``all``, and about how many ``seconds`` are left."""
    request = json.load(sys.stdin)
    arch, workers = request["arch"], request["workers"]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(request["deterministic"])
    every = [
        v
        for v in trace(unpacked(request), on_cuda=arch is not None, physics=request["physics"])
        if request["only"] in v.name
    ]
    missing = {v.name: v for v in every if not all(path.exists() for path in v.files(arch))}
    left = {name: variant.cost for name, variant in missing.items()}

    def tell(speed: float) -> None:
        seconds = max(sum(left.values()) / workers, *left.values(), 0.0) / speed
        counts = {"done": len(missing) - len(left), "of": len(missing), "all": len(every)}
        print(json.dumps(counts | {"seconds": round(seconds)}), flush=True)

    tell(1.0)
    began, total = time.monotonic(), sum(left.values())
    with contextlib.closing(compiled(list(missing.values()), arch, workers)) as names:
        for name in names if missing else ():
            del left[name]
            speed = (total - sum(left.values())) / (time.monotonic() - began) / min(workers, len(missing))
            tell(speed)
