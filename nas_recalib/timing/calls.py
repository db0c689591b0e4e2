"""From a case to two callables: vanilla and the choice, alike in everything else."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nas_recalib.device import default_threads
from nas_recalib.errors import InputError
from nas_recalib.operators import BlockChoice
from nas_recalib.timing.cases import MODES, Case, require_one_of
from nas_recalib.timing.paired import Call

DTYPES = ("float32", "bfloat16")
MEMORY_FORMATS = ("channels_last", "contiguous")
_MOST_SECONDS = 3600


@dataclass(frozen=True)
class Settings:
    """How cases are timed.

    Attributes:
        device: Where.
        mode: "forward" is inference; "train" is forward and backward with batch norm in training.
        dtype: Of convolutions: float32, or bfloat16 under autocast.
        memory_format: Of inputs and weights, channels_last or contiguous.
        threads: Of the CPU (default: half of its cores).
        seconds: Spent on each case, beside warming up; slow ones take five rounds however long.
        compile: Whether both sides are compiled first, each as one graph.
        seed: Of weights, inputs and gradients.

    Raises:
        InputError: If a value is not allowed; it is named.
    """

    device: torch.device
    mode: str = "forward"
    dtype: str = "float32"
    memory_format: str = "channels_last"
    threads: int = field(default_factory=default_threads)
    seconds: float = 2.0
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_one_of("mode", self.mode, MODES)
        require_one_of("dtype", self.dtype, DTYPES)
        require_one_of("memory-format", self.memory_format, MEMORY_FORMATS)
        cores = os.cpu_count() or 1
        if not 1 <= self.threads <= cores:
            raise InputError(f"threads: {self.threads} is not from 1 to the {cores} cores of this machine")
        if not 0 < self.seconds <= _MOST_SECONDS:
            raise InputError(f"seconds: {self.seconds:g} is not more than 0 and at most {_MOST_SECONDS}")


def vanilla_and_choice(case: Case, settings: Settings) -> tuple[Call, Call]:
    """Two callables that do the same work with the same input, one with vanilla and one with the choice.

    In training the gradient of the input is computed too, but for whole networks, whose inputs are images.
    Those also stay float32, where layers and blocks take what convolutions before them would give.
    """
    if settings.compile:
        torch.compiler.reset()  # it gives up on code that it has compiled too often
    images = case.place.set == "networks"
    x = draw(case.input_shape, settings.seed, torch.float32 if images else _dtype(settings), settings)
    x.requires_grad_(settings.mode == "train" and not images)
    return _call(case, BlockChoice(), x, settings), _call(case, case.choice, x, settings)


def _call(case: Case, choice: BlockChoice, x: Tensor, settings: Settings) -> Call:
    with torch.random.fork_rng(devices=[]):  # modules initialise themselves from the global generator
        torch.manual_seed(settings.seed)
        module = case.place.build(choice)
    lay_out(module, settings)
    if settings.compile:
        module.compile(fullgraph=True)
    forward = forward_call(module, x, settings)
    if settings.mode == "forward":
        return forward
    y = forward().detach()
    gradient = draw(tuple(y.shape), settings.seed + 1, y.dtype, settings)

    def forward_and_backward() -> None:
        forward().backward(gradient)
        module.zero_grad()
        x.grad = None

    return forward_and_backward


def lay_out(module: nn.Module, settings: Settings) -> None:
    """Moves a module to the settings' device, memory format and mode, in place."""
    layout = {"device": settings.device, "memory_format": _memory_format(settings)}
    module.to(**layout).train(settings.mode == "train")  # type: ignore[call-overload]


def forward_call(module: nn.Module, x: Tensor, settings: Settings) -> Callable[[], Tensor]:
    """Calls a module with an input in the settings' dtype; in the mode "forward" without any gradient."""
    dtype = _dtype(settings)

    def forward() -> Tensor:
        with torch.autocast(settings.device.type, dtype, enabled=dtype != torch.float32):
            y: Tensor = module(x)
        return y

    return torch.inference_mode()(forward) if settings.mode == "forward" else forward


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype, settings: Settings) -> Tensor:
    """Normal values on the settings' device and in their memory format, by a seed."""
    generator = torch.Generator(settings.device).manual_seed(seed)
    x = torch.randn(shape, generator=generator, device=settings.device, dtype=dtype)
    return x.to(memory_format=_memory_format(settings)) if x.dim() == 4 else x


def _dtype(settings: Settings) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, settings.dtype)
    return dtype


def _memory_format(settings: Settings) -> torch.memory_format:
    channels_last = settings.memory_format == "channels_last"
    return torch.channels_last if channels_last else torch.contiguous_format
