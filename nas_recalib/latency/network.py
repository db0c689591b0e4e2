"""Whole networks made quickly, and the seconds that each of their blocks takes."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas_recalib.architecture import Architecture
from nas_recalib.timing import Settings
from nas_recalib.timing.calls import lay_out
from nas_recalib.timing.paired import Call

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
