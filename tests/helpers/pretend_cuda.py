"""A CUDA device on a machine that has none: the CPU's numbers under a GPU's rules.

A pretended tensor wraps the CPU tensor that the ordinary kernels compute on. To torch's C++ it is a ``meta`` tensor,
the one device that needs no driver and that nothing else here uses; Python is told ``cuda:0``. Refused is what CUDA
refuses: operands on two devices, a generator of another device, ``numpy()``. Counted is what makes the host wait.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
META, GPU = torch.device("meta"), torch.device("cuda:0")
TO_DEVICE, TO_HOST = "copy to the device", "copy to the host"
SYNCHRONIZING = {  # the host must know the values, or how many there are
    aten._local_scalar_dense,  # item(), bool(), int(), float()
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.equal,
    aten._linalg_check_errors,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
NO_HOST_SCALARS = {aten.cat, aten.stack, aten.mm, aten.bmm, aten.addmm, aten.gather, aten.scatter, aten.index_select}
DEVICE_OF, IS_CUDA, IS_META = (getattr(Tensor, name).__get__ for name in ("device", "is_cuda", "is_meta"))


class Synchronized(AssertionError):
    """The host waited for the device where it must not."""


class CudaTensor(Tensor):
    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "CudaTensor":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, device=META, **layout)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} of a pretended CUDA tensor outside of pretend_cuda()")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """What ``torch.load(map_location="cpu")`` makes of a CUDA tensor."""
        return self.held.__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:
        return f"CudaTensor({self.held})"


class CudaGenerator(torch.Generator):
    """The CPU's numbers, and CUDA's claim to be of another device: its state fits no other generator."""

    device = GPU

    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls if torch.device(device).type == "cuda" else torch._C.Generator)

    def __init__(self, device: Any) -> None:
        pass

    def get_state(self) -> Tensor:
        return torch.cat([super().get_state(), torch.zeros(1, dtype=torch.uint8)])

    def set_state(self, state: Tensor) -> Any:
        if len(state) != len(self.get_state()):
            raise RuntimeError("RNG state is wrong size")
        return super().set_state(state[:-1])


class Pretence(TorchDispatchMode):
    """Runs operations on the wrapped tensors; :attr:`waits` counts by name what made the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._refuses = False

    @contextmanager
    def no_syncs(self) -> Iterator[None]:
        """Waiting raises :class:`Synchronized`."""
        self._refuses = True
        try:
            yield
        finally:
            self._refuses = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors: list[Tensor] = []
        _map((args, *kwargs.values()), Tensor, tensors.append)
        involved = any(isinstance(x, CudaTensor) for x in tensors)
        device = kwargs.get("device")
        on_gpu = involved if device is None else device == META
        if not involved and not on_gpu:
            return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet is aten._to_copy or packet is aten.copy_:
            source = args[0] if packet is aten._to_copy else args[1]
            arrives = on_gpu if packet is aten._to_copy else isinstance(args[0], CudaTensor)
            if isinstance(source, CudaTensor) != arrives:
                self._wait(TO_DEVICE if arrives else TO_HOST)
        elif involved:
            self._require_one_device(func, packet, args, tensors)
            self._count(packet, args)
        plain = {name: _map(value, CudaTensor, _held) for name, value in kwargs.items()}
        out = func(*_map(args, CudaTensor, _held), **(plain if device is None else plain | {"device": "cpu"}))
        out = _map(out, Tensor, CudaTensor) if on_gpu else out
        shares = involved and any(x.alias_info for x in func._schema.returns)
        return return_and_correct_aliasing(func, args, kwargs, out) if shares else out

    def _require_one_device(self, func: Any, packet: Any, args: Any, tensors: list[Tensor]) -> None:
        operands = tensors
        if packet in INDEXING:
            operands = [args[0], *(x for x in args[2:3] if isinstance(x, Tensor))]
        strangers = [x for x in operands if not isinstance(x, CudaTensor)]
        overwritten = func._schema.is_mutable and not isinstance(args[0], CudaTensor)
        if overwritten or any(x.dim() > 0 or packet in NO_HOST_SCALARS for x in strangers):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {func}")

    def _count(self, packet: Any, args: Any) -> None:
        if packet in SYNCHRONIZING:
            self._wait(packet.__name__)
        if packet in INDEXING:
            for index in args[1]:
                if isinstance(index, CudaTensor) and index.dtype in (torch.bool, torch.uint8):
                    self._wait("mask as index")
                elif isinstance(index, Tensor) and not isinstance(index, CudaTensor):
                    self._wait(TO_DEVICE)

    def _wait(self, name: str) -> None:
        self.waits[name] += 1
        if self._refuses:
            raise Synchronized(name)


class _Names(TorchFunctionMode):
    """Translates between the device that Python names and the one that C++ sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == DEVICE_OF:
            return GPU if func(*args) == META else func(*args)
        if func == IS_CUDA:
            return DEVICE_OF(*args) == META
        if func == IS_META:
            return False
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):  # C++ would make a meta tensor, without data
            device, data = kwargs.pop("device", None), args[0]
            if func is Tensor.new_tensor:
                device, data = device or DEVICE_OF(args[0]), args[1]
                kwargs.setdefault("dtype", args[0].dtype)
            made = torch.as_tensor(data, **kwargs) if func is torch.as_tensor else torch.tensor(data, **kwargs)
            return made if device is None else made.to(_seen(device))
        if func is Tensor.__getitem__ and isinstance(args[1], list):
            return args[0][torch.tensor(args[1])]
        if func is Tensor.tolist:
            return func(args[0].cpu())
        if func is Tensor.numpy and DEVICE_OF(args[0]) == META:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is Tensor.to:
            args = tuple(_seen(x) for x in args)
        if kwargs.get("device") is not None:
            kwargs["device"] = _seen(kwargs["device"])
        if kwargs.get("generator") is not None:
            target = DEVICE_OF(args[0]) if args and isinstance(args[0], Tensor) else kwargs.get("device")
            if isinstance(kwargs["generator"], CudaGenerator) != (target == META):
                raise RuntimeError(f"generator and tensor are of different devices in {func}")
        return func(*args, **kwargs)


def _map(x: Any, kind: type, function: Any) -> Any:
    """The tree's leaves of this kind mapped; torch's own pytree takes most of a test's time."""
    if isinstance(x, kind):
        return function(x)
    return type(x)(_map(part, kind, function) for part in x) if type(x) in (tuple, list) else x


def _held(x: CudaTensor) -> Tensor:
    return x.held


def _seen(x: Any) -> Any:
    """The device that C++ is given for one that Python names; anything else as it is."""
    return META if isinstance(x, str | torch.device) and str(x).startswith("cuda") else x


@contextmanager
def pretend_cuda() -> Iterator[Pretence]:
    """Inside, ``device="cuda"`` works."""
    pretence, nothing = Pretence(), mock.Mock(return_value=None)
    cuda = {"is_available": True, "is_initialized": True, "mem_get_info": (5 << 29, 8 << 29)}
    with ExitStack() as stack:
        for name, value in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, mock.Mock(return_value=value)))
        for name in ("synchronize", "reset_peak_memory_stats"):
            stack.enter_context(mock.patch.object(torch.cuda, name, nothing))
        stack.enter_context(mock.patch.object(torch, "Generator", CudaGenerator))
        stack.enter_context(pretence)
        stack.enter_context(_Names())
        yield pretence


def to_host(tree: Any) -> Any:
    """The same with plain tensors, whatever they were."""
    return tree_map_only(CudaTensor, _held, tree)
