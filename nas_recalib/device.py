"""Devices: selection, names, threads, memory and precision."""

import ctypes
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import torch

from nas_recalib.errors import InputError


def pick_device(name: str | None) -> torch.device:
    """Return a device by name; by default the first GPU, or the CPU where there is none.

    Raises:
        InputError: If the device does not exist.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = ["cpu"]
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name not in names:
        raise InputError(f"device: {name!r} does not exist here; allowed: {', '.join(names)}")
    return torch.device(name)


def device_name(device: torch.device, threads: int | None = None) -> str:
    """Return the name of a device; that of a CPU includes the number of threads (default: torch's)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name(_processor(), threads or torch.get_num_threads(), os.cpu_count() or 1)


@dataclass(frozen=True)
class Described:
    """Description of a device that trains, on this or on another machine.

    Attributes:
        type: Type of the device, cpu or cuda.
        name: Name of the device; that of a CPU is without threads.
        dtype: Name of the data type that it is fast in.
        threads: Default number of CPU threads of a training.
        cores: Number of cores of its machine.
    """

    type: str
    name: str
    dtype: str
    threads: int
    cores: int

    def with_threads(self, threads: int) -> str:
        """Return the name of the device; that of a CPU includes the number of threads."""
        return self.name if self.type == "cuda" else _cpu_name(self.name, threads, self.cores)


def describe(device: torch.device) -> Described:
    """Return the description of a device of this machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    dtype = str(fast_dtype(device)).removeprefix("torch.")
    return Described(device.type, name, dtype, default_threads(), os.cpu_count() or 1)


def default_threads() -> int:
    """Return half of the number of cores.

    On proxy-sized networks the other half adds little, and another busy process on any core delays every
    step: two threads on two cores were about as fast as one, and ten times slower beside another process.
    """
    return max(1, (os.cpu_count() or 1) // 2)


@contextmanager
def with_threads(threads: int) -> Iterator[None]:
    """Set torch's number of CPU threads inside a context."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> bool:
    """Make this process reuse freed memory for the next tensors instead of returning it to the system.

    On a CPU, a fresh page can cost about as much as computing its content. Only glibc's memory allocator is
    configured.

    Returns:
        Whether the allocator was configured.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    return bool(mallopt(mmap_threshold, most) and mallopt(trim_threshold, most))


def free_memory() -> None:
    """Release unreferenced memory, including that which torch caches on the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device computes in it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return torch.bfloat16 if native else torch.float32


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide a result."""
    return {name: version(name) for name in ("nas-recalib", "torch", "torchvision", "optuna")}


def _cpu_name(processor: str, threads: int, cores: int) -> str:
    return f"{processor} ({threads} of {cores} threads)"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - read line by line, then left
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
