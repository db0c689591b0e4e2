"""Timing of whole networks alternately with a reference network, so that drift of the machine cancels out."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.latency.conditions import require_batch
from nas_recalib.timing.cases import Settings, configure_torch, forward_call, move_module, random_input
from nas_recalib.timing.paired import Call, cudnn_benchmark, synchronizer, time_alternately

_INITIALIZERS = (
    *("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_"),
    *("xavier_normal_", "xavier_uniform_"),
)
_NOISE_SIZE = 1_000_003  # a prime, so that hardly any two filters are equal
_MAX_COMPILED = 1_000_000  # regions of one network; they share the code of their classes


class _NoiseInitialization(TorchFunctionMode):
    """Initialisation of every weight with a copy of the same noise, divided by the square root of the fan-in.

    Copying takes about half of the time of drawing. In deep networks no activation vanishes into denormal
    numbers, which processors are slow with.

    Args:
        seed: Seed of the noise.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._noise = torch.randn(_NOISE_SIZE, generator=torch.Generator().manual_seed(seed))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") not in _INITIALIZERS:
            return func(*args, **(kwargs or {}))
        tensor: Tensor = args[0] if args else kwargs["tensor"]
        count = tensor.numel()
        noise = self._noise.repeat(-(-count // _NOISE_SIZE))[:count]
        fan_in = max(1, tensor[0].numel()) if tensor.dim() > 1 else _NOISE_SIZE
        with torch.no_grad():
            return tensor.copy_(noise.view(tensor.shape)).mul_(fan_in**-0.5)


def build_quickly(architecture: Architecture, settings: Settings) -> nn.Module:
    """Build the network of an architecture for timing: its weights are noise, its norms do nothing.

    Where the settings say so, it is compiled region by region: each block, and each part without blocks.
    """
    with torch.random.fork_rng(devices=[]), _NoiseInitialization(settings.seed):
        torch.manual_seed(settings.seed)
        network = architecture.shape.build(architecture.blocks, architecture.num_classes, in_channels=3)
    move_module(network, settings)
    if settings.compile:
        _compile(network, list(architecture.blocks))
    return network


def _compile(network: nn.Module, blocks: Sequence[str]) -> None:
    """Compile a network by regions; blocks are put into containers, whose hooks stay uncompiled."""
    paths = [name.split(".") for name in blocks]
    parents = {".".join(path[:depth]) for path in paths for depth in range(len(path))}
    for name, module in list(network.named_modules()):
        if name in blocks:
            module.compile()
            network.set_submodule(name, nn.Sequential(module))
        elif name not in parents and name.rpartition(".")[0] in parents:
            module.compile()


class BlockTimer:
    """Timer of the blocks of a network, by hooks that exist only while the network is called.

    Attributes:
        calls: For each call the time marks before and after each block, in the order of the names.

    Args:
        network: Network to time.
        blocks: Names of its blocks.
        device: Device of the network.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[str], device: torch.device) -> None:
        self.calls: list[list[tuple[Any, Any]]] = []
        self._modules = [network.get_submodule(name) for name in blocks]
        self._device = device

    def with_hooks(self, call: Call) -> Call:
        """Return a function that makes a call with the hooks in place."""

        def timed() -> None:
            before: dict[int, Any] = {}
            after: dict[int, Any] = {}
            with ExitStack() as hooks:
                for index, module in enumerate(self._modules):
                    hooks.enter_context(module.register_forward_pre_hook(self._hook(before, index)))
                    hooks.enter_context(module.register_forward_hook(self._hook(after, index)))
                call()
            self.calls.append([(before[index], after[index]) for index in range(len(self._modules))])

        return timed

    def seconds(self, last: int) -> list[list[float]]:
        """Return the seconds of each block in each of the last calls; a GPU must be synchronised first."""
        cuda = self._device.type == "cuda"
        return [
            [float(before.elapsed_time(after)) / 1e3 if cuda else after - before for before, after in call]
            for call in self.calls[-last:]
        ]

    def _hook(self, marks: dict[int, Any], index: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            if self._device.type == "cuda":
                marks[index] = torch.cuda.Event(enable_timing=True)
                marks[index].record(torch.cuda.current_stream(self._device))
            else:
                marks[index] = time.perf_counter()

        return hook


@dataclass(frozen=True)
class Sample:
    """Times of a network and of the reference, measured alternately.

    Attributes:
        reference: Seconds of each forward pass of the reference.
        network: Seconds of each forward pass of the network, as many as of the reference.
        blocks: Median seconds of each of the network's blocks in their order; empty if they were not timed.
    """

    reference: tuple[float, ...]
    network: tuple[float, ...]
    blocks: tuple[float, ...] = ()


Timer = Callable[[Architecture], Sample]


class PairedTimer:
    """Timer of networks, which alternates every network with the same reference network.

    Every call of `time` warms up, then runs forward passes in turn (A B, B A, A B, ...) for about
    `settings.seconds`, at least three of each. Whole networks are timed without hooks, blocks in separate
    passes.

    Args:
        reference: Architecture of the reference network.
        settings: Device, dtype and so on.
        batch: Batch size.

    Raises:
        InputError: If the batch is not allowed, or training is asked for.
    """

    def __init__(self, reference: Architecture, settings: Settings, batch: int) -> None:
        require_batch(batch)
        if settings.mode != "forward":
            raise InputError(f"mode: latency is measured in 'forward', not in {settings.mode!r}")
        self._settings = settings
        self._batch = batch
        configure_torch(settings)
        with cudnn_benchmark(f"{reference.backbone}, batch {batch}"):
            self._reference = self._call(reference)[0]

    def time(self, architecture: Architecture, *, blocks: bool = False) -> Sample:
        """Return the times of a network, and of its blocks if wanted.

        Raises:
            InputError: If the network does not fit into memory.
        """
        with cudnn_benchmark(f"{architecture.backbone}, batch {self._batch}"), self._compiler():
            network, timer = self._call(architecture)
            times = time_alternately(
                [self._reference, network, *([timer.with_hooks(network)] if blocks else [])],
                seconds=self._settings.seconds,
                min_rounds=3,
                warmup=1,
                synchronize=synchronizer(self._settings.device),
            )
        reference, whole, *_ = zip(*times.rounds, strict=True)
        seconds = timer.seconds(len(times.rounds) * times.iterations) if blocks else []
        return Sample(reference, whole, tuple(map(statistics.median, zip(*seconds, strict=True))))

    def _call(self, architecture: Architecture) -> tuple[Call, BlockTimer]:
        side = architecture.input_size
        network = build_quickly(architecture, self._settings)
        x = random_input((self._batch, 3, side, side), self._settings.seed, torch.float32, self._settings)
        timer = BlockTimer(network, list(architecture.blocks), self._settings.device)
        return forward_call(network, x, self._settings), timer

    @contextmanager
    def _compiler(self) -> Iterator[None]:
        """Discard the code of earlier networks, which slows calls down, and allow any number of regions."""
        if not self._settings.compile:
            yield
            return
        torch.compiler.reset()
        limits = {"recompile_limit": _MAX_COMPILED, "accumulated_recompile_limit": _MAX_COMPILED}
        with torch._dynamo.config.patch(limits):
            yield


@dataclass(frozen=True)
class Measurement:
    """Measured latency of an architecture, corrected for drift.

    Attributes:
        median_ms: Median of the forward passes, in milliseconds.
        lower: Lower quartile, in milliseconds.
        upper: Upper quartile, in milliseconds.
    """

    median_ms: float
    lower: float
    upper: float


def measure_architectures(
    architectures: Sequence[Architecture],
    settings: Settings,
    batch: int,
    reference: Architecture,
    *,
    reference_ms: float | None = None,
    passes: int = 2,
    progress: Callable[[int, int], None] = lambda *_: None,
    timer: Timer | None = None,
) -> list[Measurement]:
    """Measure the latency of each architecture, in several passes over all of them.

    The times of a sample are scaled so that the reference is equally fast in all samples.

    Args:
        architectures: Architectures to measure.
        settings: Device, dtype and so on; `seconds` is the time of one sample without warm-up.
        batch: Batch size.
        reference: Architecture that is timed alternately with each.
        reference_ms: Latency of the reference after scaling, such as `LatencyTable.reference_ms`, so that
            the results are comparable with the table (default: its median here).
        passes: Number of samples of each architecture.
        progress: Function that is called after each sample with the number of finished and of all samples.
        timer: Replacement of a `PairedTimer`.

    Returns:
        Measurement of each architecture, in the order given.

    Raises:
        InputError: If an architecture does not fit into memory.
    """
    timer = timer or PairedTimer(reference, settings, batch).time
    samples: list[list[Sample]] = [[] for _ in architectures]
    for number in range(passes * len(architectures)):
        index = number % len(architectures)
        samples[index].append(timer(architectures[index]))
        progress(number + 1, passes * len(architectures))
    usual = statistics.median(statistics.median(s.reference) for row in samples for s in row)
    seconds = usual if reference_ms is None else reference_ms / 1e3
    return [_measurement(row, seconds) for row in samples]


def _measurement(samples: Sequence[Sample], reference: float) -> Measurement:
    """Return the measurement of an architecture, scaled to the seconds that the reference is to take."""
    milliseconds = [
        seconds * reference / statistics.median(sample.reference) * 1e3
        for sample in samples
        for seconds in sample.network
    ]
    lower, median, upper = map(float, np.quantile(milliseconds, (0.25, 0.5, 0.75)))
    return Measurement(median, lower, upper)
