"""Peak memory of activations in inference, from the bytes allocated while each block runs on fake tensors."""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas_recalib.networks import Backbone, BlockSpec
from nas_recalib.operators import BlockChoice

Shape = tuple[int, ...]


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations allocate, until they are freed; weights do not count.

    Attributes:
        live: Bytes allocated now.
        peak: Most bytes allocated at once so far.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known = {weight.untyped_storage()._cdata for weight in weights}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        scratch = _inside_convolution(*args) if function is torch.ops.aten.convolution.default else 0
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        self.peak = max(self.peak, self.live + scratch)
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.remove(key)
        self.live -= size


@contextmanager
def fake_run(
    module: nn.Module, dtype: torch.dtype, device: str
) -> Iterator[tuple[LiveBytes, Callable[[Shape], None]]]:
    """Yield a tracker of memory, and a function that runs a module on an input of a shape.

    The tensors are fake ones of the device, so that operators take the paths that they take on it.

    Args:
        module: Module on the meta device.
        dtype: Data type of the input and the weights.
        device: "cpu" or "cuda"; neither has to be present.
    """
    module = module.to(dtype).eval()
    named = (*module.named_parameters(), *module.named_buffers())
    with FakeTensorMode(), torch.no_grad():
        weights = {name: torch.empty(t.shape, dtype=t.dtype, device=device) for name, t in named}
        tracker = LiveBytes(weights.values())

        def run(shape: Shape) -> None:
            with tracker:
                functional_call(module, weights, (torch.empty(shape, dtype=dtype, device=device),))

        yield tracker, run


def _inside_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> int:
    """Return the bytes that torch allocates inside a convolution besides its result.

    Inputs that are not contiguous are copied. On a CPU, oneDNN reorders weights, and the input of grouped and
    of 1x1 convolutions, and copies its own result to the returned one. Convolutions too small for oneDNN are
    unfolded into columns, and if grouped, the groups' results are concatenated.
    """
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    rest = {"transposed": transposed, "output_padding": output_padding, "bias_sizes": None}
    backend = torch._C._select_conv_backend(x, weight, bias, **geometry, **rest)
    layout = torch._C._conv_determine_backend_memory_format(x, weight, backend)
    copies = sum(t.nbytes for t in (x, weight) if not t.is_contiguous(memory_format=layout))
    outputs = [
        (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    pixels = math.prod(outputs) * x.itemsize
    result = x.shape[0] * weight.shape[0] * pixels
    columns = weight[0].numel() * pixels
    pointwise = math.prod(weight.shape[2:]) == 1
    kinds = torch._C._ConvBackend  # type: ignore[attr-defined]
    if backend == kinds.Mkldnn and layout == torch.contiguous_format:
        return copies + max(result, weight.nbytes + (x.nbytes if groups > 1 or pointwise else 0))
    if backend == kinds.SlowDilated2d:
        return copies + columns  # one image at a time
    if backend == kinds.Slow2d:
        unfolded = 0 if pointwise and set(stride) == {1} else columns * x.shape[0]
        return copies + unfolded + (result if groups > 1 else 0)
    return copies


P = ParamSpec("P")
R = TypeVar("R")


def _cached(function: Callable[P, R]) -> Callable[P, R]:
    """Cache a function by its arguments and torch's number of threads, which decides how a CPU convolves."""

    @cache
    def by_threads(_: int, *args: Any, **kwargs: Any) -> R:
        return function(*args, **kwargs)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given: Any = by_threads
        found: R = given(torch.get_num_threads(), *args, **kwargs)
        return found

    return call


@_cached
def block_memory(
    spec: BlockSpec,
    choice: BlockChoice,
    input_shape: Shape,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> int:
    """Return the most bytes allocated at once while a block runs, its input included.

    Args:
        spec: Block without its operators.
        choice: Operators of the block.
        input_shape: Shape of the input, (N, C, H, W).
        dtype: Data type of the input and the block's weights.
        device: "cpu" or "cuda"; neither has to be present.

    Raises:
        ValueError: If the choice does not fit the block.
    """
    with torch.device("meta"):
        block = spec.build(choice)
    with fake_run(block, dtype, device) as (tracker, run):
        run(input_shape)
    return tracker.peak


@_cached
def fixed_memory(
    backbone: Backbone,
    input_size: int,
    num_classes: int,
    batch: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[int, Mapping[str, tuple[int, Shape]]]:
    """Return the peak outside the blocks, and for each block the bytes besides its input and its shape."""
    specs = backbone.blocks()
    found: dict[str, tuple[int, Shape]] = {}
    peak = 0
    with torch.device("meta"):
        network = backbone.build(dict.fromkeys(specs, BlockChoice()), num_classes, 3)
    with fake_run(network, dtype, device) as (tracker, run):

        def enter(name: str, x: Tensor) -> None:
            nonlocal peak
            peak = max(peak, tracker.peak)
            found[name] = tracker.live - x.untyped_storage().nbytes(), tuple(x.shape)

        def leave(*_: Any) -> None:
            tracker.peak = tracker.live

        for name in specs:
            block = network.get_submodule(name)
            block.register_forward_pre_hook(lambda _, inputs, name=name: enter(name, *inputs))
            block.register_forward_hook(leave)
        run((batch, 3, input_size, input_size))
    return max(peak, tracker.peak), found


def network_memory(
    backbone: Backbone,
    choices: Mapping[str, BlockChoice],
    *,
    input_size: int,
    num_classes: int,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> int:
    """Return the peak bytes of a network's activations in inference, the greatest of its blocks' peaks.

    Args:
        backbone: Network without its operators.
        choices: Choice at each of its blocks.
        input_size: Side of the images, in pixels.
        num_classes: Number of classes.
        batch: Number of images at once.
        dtype: Data type of the images and the network's weights.
        device: "cpu" or "cuda"; neither has to be present.

    Raises:
        ValueError: If an operator does not fit its block; the block is named.
    """
    constant, blocks = fixed_memory(backbone, input_size, num_classes, batch, dtype, device)
    peaks = (
        named_block_memory(name, spec, choices[name], blocks[name], dtype, device)
        for name, spec in backbone.blocks().items()
    )
    return max(constant, *peaks)


def named_block_memory(
    name: str,
    spec: BlockSpec,
    choice: BlockChoice,
    held: tuple[int, Shape],
    dtype: torch.dtype,
    device: str,
) -> int:
    """Return `block_memory` plus the bytes that the network holds meanwhile; errors name the block.

    Args:
        name: Name of the block.
        spec: Block without its operators.
        choice: Operators of the block.
        held: Bytes held besides the block's input, and the shape of the input.
        dtype: Data type of the input and the block's weights.
        device: "cpu" or "cuda"; neither has to be present.

    Raises:
        ValueError: If the choice does not fit the block.
    """
    beside, input_shape = held
    try:
        return beside + block_memory(spec, choice, input_shape, dtype, device)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
