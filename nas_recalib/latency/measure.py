"""Timing of whole networks beside a reference, in turns, so that drift of the machine cancels out."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.latency.conditions import require_batch
from nas_recalib.timing import Settings, time_side_by_side
from nas_recalib.timing.cases import draw, forward_call, lay_out, set_up
from nas_recalib.timing.paired import Call, fastest_convolutions, synchronizer

_DRAWS = frozenset(
    {
        "kaiming_normal_",
        "kaiming_uniform_",
        "normal_",
        "trunc_normal_",
        "uniform_",
        "xavier_normal_",
        "xavier_uniform_",
    }
)
_NOISE = 1_000_003  # a prime, so that hardly any two filters are alike

Marks = list[tuple[Any, Any]]


class _CopiedDraws(TorchFunctionMode):
    """Every draw in place becomes a copy of the same noise, divided by the square root of the fan-in.

    Copying takes about half of the time that drawing does. Deep networks stay within ordinary numbers: no
    activation vanishes into denormal ones, which processors are slow with.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(seed))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") not in _DRAWS:
            return func(*args, **(kwargs or {}))
        tensor: Tensor = args[0] if args else kwargs["tensor"]
        count = tensor.numel()
        noise = self._noise.repeat(-(-count // _NOISE))[:count]
        fan_in = max(1, tensor[0].numel()) if tensor.dim() > 1 else _NOISE
        with torch.no_grad():
            return tensor.copy_(noise.view(tensor.shape)).mul_(fan_in**-0.5)


def build_quickly(architecture: Architecture, settings: Settings) -> nn.Module:
    """The network of an architecture, ready to be timed; its weights are noise, its norms do nothing.

    Compiled region by region where the settings say so: each block, and each part that holds no block.
    """
    with torch.random.fork_rng(devices=[]), _CopiedDraws(settings.seed):
        torch.manual_seed(settings.seed)
        network = architecture.shape.build(architecture.blocks, architecture.num_classes, in_channels=3)
    lay_out(network, settings)
    if settings.compile:
        _compile(network, list(architecture.blocks))
    return network


def _compile(network: nn.Module, blocks: Sequence[str]) -> None:
    """A block is put into a container, whose hooks are not compiled with it."""
    owners = {""}.union(*({name[:index] for index in _dots(name)} for name in blocks))
    for name, module in list(network.named_modules()):
        if name in blocks:
            module.compile()
            network.set_submodule(name, nn.Sequential(module))
        elif name not in owners and name.rpartition(".")[0] in owners:
            module.compile()


def _dots(name: str) -> list[int]:
    return [index for index, letter in enumerate(name) if letter == "."]


class BlockClock:
    """Times the blocks of a network while it is called, by hooks that are there for that call alone.

    Attributes:
        calls: For each call a mark before and after each block, in the order of the names.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[str], device: torch.device) -> None:
        self.calls: list[Marks] = []
        self._modules = [network.get_submodule(name) for name in blocks]
        self._mark = _event_recorder(device) if device.type == "cuda" else time.perf_counter

    def around(self, call: Call) -> Call:
        """The same call with the hooks in place."""

        def clocked() -> None:
            before: dict[int, Any] = {}
            after: dict[int, Any] = {}
            handles = []
            for index, module in enumerate(self._modules):
                handles.append(module.register_forward_pre_hook(self._note(before, index)))
                handles.append(module.register_forward_hook(self._note(after, index)))
            try:
                call()
            finally:
                for handle in handles:
                    handle.remove()
            self.calls.append([(before[index], after[index]) for index in range(len(self._modules))])

        return clocked

    def seconds(self, last: int) -> list[list[float]]:
        """Seconds of each block in each of the last calls; a GPU must have finished them."""
        return [[_seconds_between(*marks) for marks in call] for call in self.calls[-last:]]

    def _note(self, marks: dict[int, Any], index: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            marks[index] = self._mark()

        return hook


def _event_recorder(device: torch.device) -> Callable[[], Any]:
    def record() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    return record


def _seconds_between(before: Any, after: Any) -> float:
    if isinstance(before, float):
        return float(after - before)
    return float(before.elapsed_time(after)) / 1e3


_MOST_COMPILED = 1_000_000  # regions of one network; they share the code of their classes


@dataclass(frozen=True)
class Sample:
    """What one network took, and what the reference took beside it.

    Attributes:
        reference: Seconds of forward passes of the reference.
        network: Seconds of forward passes of the network, one beside each of those.
        blocks: Median seconds of each of the network's blocks, in their order; empty if not asked for.
    """

    reference: tuple[float, ...]
    network: tuple[float, ...]
    blocks: tuple[float, ...] = ()


Timer = Callable[[Architecture], Sample]


class PairedTimer:
    """Keeps a reference network, and times others beside it.

    Every call of `time` warms up, then goes forward with each in turn (A B, B A, A B, ...) for about
    `settings.seconds`, three times at least. Whole networks are timed without hooks, blocks in passes of
    their own.

    Args:
        reference: What others stand beside.
        settings: Where and how.
        batch: Images at once.

    Raises:
        InputError: If the batch is not allowed, or training is asked for.
    """

    def __init__(self, reference: Architecture, settings: Settings, batch: int) -> None:
        require_batch(batch)
        if settings.mode != "forward":
            raise InputError(f"mode: {settings.mode!r} is not what latency is measured in; use 'forward'")
        self._settings = settings
        self._batch = batch
        set_up(settings)
        with fastest_convolutions(f"{reference.backbone}, batch {batch}"):
            self._reference = self._call(reference)[0]

    def time(self, architecture: Architecture, *, blocks: bool = False) -> Sample:
        """Times a network, and its blocks if asked for.

        Raises:
            InputError: If it does not fit into the memory there is.
        """
        with fastest_convolutions(f"{architecture.backbone}, batch {self._batch}"), self._compiler():
            network, clock = self._call(architecture)
            times = time_side_by_side(
                [self._reference, network, *([clock.around(network)] if blocks else [])],
                seconds=self._settings.seconds,
                least_rounds=3,
                warm_up=1,
                synchronize=synchronizer(self._settings.device),
            )
        reference, whole, *_ = zip(*times.rounds, strict=True)
        seconds = clock.seconds(len(times.rounds) * times.repeats) if blocks else []
        return Sample(reference, whole, tuple(map(statistics.median, zip(*seconds, strict=True))))

    def _call(self, architecture: Architecture) -> tuple[Call, BlockClock]:
        side = architecture.input_size
        network = build_quickly(architecture, self._settings)
        x = draw((self._batch, 3, side, side), self._settings.seed, torch.float32, self._settings)
        clock = BlockClock(network, list(architecture.blocks), self._settings.device)
        return forward_call(network, x, self._settings), clock

    @contextmanager
    def _compiler(self) -> Iterator[None]:
        """Forgets what was compiled for earlier networks, which slows calls down, and sets no limit to it."""
        if not self._settings.compile:
            yield
            return
        torch.compiler.reset()
        limits = {"recompile_limit": _MOST_COMPILED, "accumulated_recompile_limit": _MOST_COMPILED}
        with torch._dynamo.config.patch(limits):
            yield


@dataclass(frozen=True)
class Measured:
    """What one architecture took.

    Attributes:
        median_ms: Median over its forward passes, in milliseconds, without drift.
        lower: Their lower quartile.
        upper: Their upper quartile.
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
) -> list[Measured]:
    """Times each architecture beside a reference, all of them in turn and then all again.

    The times of a visit are scaled so that the reference takes equally long in all visits.

    Args:
        architectures: What to measure.
        settings: Where and how; `seconds` are those of one visit, beside warming up.
        batch: Images at once.
        reference: What stands beside each.
        reference_ms: What the reference is to take after scaling, such as `LatencyTable.reference_ms`, so
            that what comes out can be compared with the table (default: its median here).
        passes: How often each is visited.
        progress: Is told after each visit how many are done, and of how many.
        timer: In the place of a `PairedTimer`.

    Returns:
        What each took, in the order given.

    Raises:
        InputError: If one does not fit into the memory there is.
    """
    timer = timer or PairedTimer(reference, settings, batch).time
    visits: list[list[Sample]] = [[] for _ in architectures]
    for turn in range(passes):
        for index, architecture in enumerate(architectures):
            visits[index].append(timer(architecture))
            progress(turn * len(architectures) + index + 1, passes * len(architectures))
    usual = statistics.median(_beside(sample) for samples in visits for sample in samples)
    wanted = usual if reference_ms is None else reference_ms / 1e3
    return [_measured(samples, wanted) for samples in visits]


def _beside(sample: Sample) -> float:
    return statistics.median(sample.reference)


def _measured(samples: Sequence[Sample], reference: float) -> Measured:
    scaled = [seconds * reference / _beside(sample) * 1e3 for sample in samples for seconds in sample.network]
    lower, median, upper = map(float, np.quantile(scaled, (0.25, 0.5, 0.75)))
    return Measured(median, lower, upper)
