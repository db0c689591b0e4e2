"""Which device to run on, and what it is called."""

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
    """A device by name; by default the first GPU, or the CPU where there is none.

    Raises:
        InputError: If the name is unknown or there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name not in there:
        raise InputError(f"device: {name!r} is not here; allowed: {', '.join(there)}")
    return torch.device(name)


def device_name(device: torch.device, threads: int | None = None) -> str:
    """The device in words; of a CPU, with as many threads as told (default: torch's)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name(_processor(), threads or torch.get_num_threads(), os.cpu_count() or 1)


@dataclass(frozen=True)
class Described:
    """A device that trains, here or on another machine.

    Attributes:
        type: cpu or cuda.
        name: In words, of a CPU without its threads.
        dtype: That it is fast in.
        threads: Of the CPU that a training takes where nothing else is asked for.
        cores: Of its machine.
    """

    type: str
    name: str
    dtype: str
    threads: int
    cores: int

    def with_threads(self, threads: int) -> str:
        """Return the device in words, of a CPU with the number of threads that it computes with."""
        return self.name if self.type == "cuda" else _cpu_name(self.name, threads, self.cores)


def describe(device: torch.device) -> Described:
    """A device of this machine."""
    return Described(
        type=device.type,
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        dtype=str(fast_dtype(device)).removeprefix("torch."),
        threads=default_threads(),
        cores=os.cpu_count() or 1,
    )


def default_threads() -> int:
    """Half of the cores.

    On proxy-sized networks the other half adds little, and a busy neighbour on any core holds up every step:
    two threads on two cores were about as fast as one, and ten times slower beside another process.
    """
    return max(1, (os.cpu_count() or 1) // 2)


@contextmanager
def with_threads(threads: int) -> Iterator[None]:
    """Has torch take so many threads of the CPU inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> bool:
    """Has this process keep what tensors free, for the next ones, instead of giving it back to the system.

    A fresh page can cost about as much as computing what is written on it. Of use on CPUs; other memory
    allocators than glibc's are left as they are.

    Returns:
        Whether it is so from now on.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    return bool(mallopt(mmap_threshold, most) and mallopt(trim_threshold, most))


def free_memory() -> None:
    """Gives back what nothing refers to any more, on the GPU too, where torch would keep it for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return torch.bfloat16 if native else torch.float32


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {name: version(name) for name in ("nas-recalib", "torch", "torchvision", "optuna")}


def _cpu_name(processor: str, threads: int, cores: int) -> str:
    return f"{processor} ({threads} of {cores} threads)"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - read line by line, then left
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
