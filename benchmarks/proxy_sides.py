"""Sides that the proxy benchmark compares: the loop of a search, the plain recipe, peak matrix products."""

import time
from dataclasses import dataclass, replace

import torch
from plain_recipe import plain_loader, plain_training
from torch import nn

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.costs.macs import network_cost
from nas_recalib.data import Resident, Source, load_resident
from nas_recalib.device import fast_dtype
from nas_recalib.errors import InputError
from nas_recalib.proxy.evaluation import normalise, reproducible
from nas_recalib.proxy.train import Recipe, Training, make_optimizer, train_step
from nas_recalib.timing.cases import Settings
from nas_recalib.timing.paired import Call, synchronizer

PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}
PRODUCTS = 4


def seconds_of(call: Call, device: torch.device) -> float:
    """Return the seconds of a call, including the work that it queues on the device."""
    synchronize = synchronizer(device)
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Side:
    """Side of the comparison, of which one run is timed in every round."""

    name: str
    dtype: torch.dtype
    run: Call
    macs: int
    prepare: Call = lambda: None


@dataclass(frozen=True)
class Slice:
    """Training that each side does in a round."""

    architecture: Architecture
    batch: int
    steps: int
    workers: int
    compile: bool

    @property
    def images(self) -> int:
        return self.batch * self.steps

    def network(self, seed: int) -> nn.Module:
        architecture = self.architecture
        shape = architecture.shape.scaled(1.0)
        return build_seeded(shape, architecture.blocks, architecture.num_classes, 3, seed)

    def macs(self) -> int:
        """Return the MACs of a round: forward, and twice as many for gradients of inputs and weights."""
        architecture = self.architecture
        sizes = {"input_size": architecture.input_size, "num_classes": architecture.num_classes}
        shape = architecture.shape.scaled(1.0)
        return 3 * self.images * network_cost(shape, architecture.blocks, **sizes).macs


def plain_side(piece: Slice, data: Resident, settings: Settings) -> Side:
    """Return the plain recipe, which uses up the batches prefetched between runs before it is timed."""
    loader = plain_loader(data, piece.batch, piece.workers, settings.device, settings.seed)
    train = plain_training(piece.network(settings.seed), loader, settings.device)
    ahead = piece.workers * loader.prefetch_factor
    run, prepare = (lambda: train(piece.steps)), (lambda: train(ahead))
    return Side("plain recipe", torch.float32, run, piece.macs(), prepare)


def our_side(
    piece: Slice,
    data: Resident,
    settings: Settings,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    compiled: bool = False,
) -> Side:
    """Return the loop of a search: an epoch over a slice's images, with shuffling, cropping and mirroring."""
    network = piece.network(settings.seed).to(device=settings.device, memory_format=memory_format)
    if memory_format == torch.contiguous_format:
        network.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    if compiled:
        for name in piece.architecture.blocks:
            network.get_submodule(name).compile(fullgraph=True, dynamic=False)
    recipe = Recipe(batch_size=piece.batch)
    given = {"seed": settings.seed, "dtype": dtype, "recipe": recipe, "memory_format": memory_format}
    run = Training(network, data, 1, **given).train_epoch
    words = (_word(dtype), _word(memory_format).removesuffix("_format"), *(["compiled"] * compiled))
    return Side(", ".join(words), dtype, run, piece.macs())


def fixed_side(piece: Slice, data: Resident, settings: Settings, dtype: torch.dtype) -> Side:
    """Return as many steps on one prepared batch, without a loader."""
    layout = {"device": settings.device, "memory_format": torch.channels_last}
    network, recipe = piece.network(settings.seed).to(**layout).train(), Recipe(batch_size=piece.batch)
    optimizer = make_optimizer(network, recipe)
    images = normalise(data.train_images[: piece.batch], data).to(**layout)
    labels = data.train_labels[: piece.batch]

    def run() -> None:
        with reproducible():
            for _ in range(piece.steps):
                train_step(network, optimizer, images, labels, dtype, recipe)

    return Side("one fixed batch", dtype, run, piece.macs())


def product_side(dtype: torch.dtype, device: torch.device) -> Side:
    """Return products of large matrices, which reach the device's peak."""
    side = PRODUCT_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    y = torch.empty_like(a)

    def run() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b, out=y)

    return Side(f"{_word(dtype)} product", dtype, run, PRODUCTS * side**3)


def _word(value: object) -> str:
    return str(value).removeprefix("torch.")


def list_sides(piece: Slice, source: Source, settings: Settings) -> list[Side]:
    """Return the search's own setting, one fixed batch, the plain recipe, and then the other sides."""
    few = min(10 * len(source.classes), len(source.train.labels) // 5)
    everything = load_resident(source, piece.architecture.input_size, None, few, settings.seed)
    if piece.images > len(everything.train_labels):
        raise InputError(f"steps: {piece.steps} of {piece.batch} images exceed the data set")
    drawn = torch.randperm(
        len(everything.train_labels), generator=torch.Generator().manual_seed(settings.seed)
    )[: piece.images]
    part = {"train_images": everything.train_images[drawn], "train_labels": everything.train_labels[drawn]}
    data = replace(everything, **part).to(settings.device)
    fast = (fast_dtype(settings.device), torch.channels_last)
    formats = (torch.contiguous_format, torch.channels_last)
    others = [(dtype, layout) for dtype in (torch.float32, torch.bfloat16) for layout in formats]
    others.remove(fast)
    return [
        our_side(piece, data, settings, *fast),
        fixed_side(piece, data, settings, fast[0]),
        plain_side(piece, everything, settings),
        *(our_side(piece, data, settings, *other) for other in others),
        *([our_side(piece, data, settings, *fast, compiled=True)] if piece.compile else []),
        *(product_side(dtype, settings.device) for dtype in (torch.float32, torch.bfloat16)),
    ]
