"""What the benchmark of proxies times side by side: the loop of a search, the plain recipe, the device."""

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
from nas_recalib.proxy.train import Recipe, Training, make_optimizer, normalise, reproducible, train_step
from nas_recalib.timing.cases import Settings
from nas_recalib.timing.paired import Call, synchronizer

PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}
PRODUCTS = 4


def seconds_of(call: Call, device: torch.device) -> float:
    """Of one call, with what it leaves running on the device."""
    synchronize = synchronizer(device)
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Side:
    """What is timed against the others: one run of it in every round."""

    name: str
    dtype: torch.dtype
    run: Call
    macs: int
    prepare: Call = lambda: None


@dataclass(frozen=True)
class Slice:
    """What each training side does in a round."""

    architecture: Architecture
    batch: int
    steps: int
    workers: int
    compile: bool

    @property
    def images(self) -> int:
        return self.batch * self.steps

    def network(self, seed: int) -> nn.Module:
        shape, told = self.architecture.shape.scaled(1.0), self.architecture
        return build_seeded(shape, told.blocks, told.num_classes, 3, seed)

    def macs(self) -> int:
        """Of the slice: forward, and twice as many backward, for gradients of inputs and of weights."""
        told = self.architecture
        sizes = {"input_size": told.input_size, "num_classes": told.num_classes}
        return 3 * self.images * network_cost(told.shape.scaled(1.0), told.blocks, **sizes).macs


def plain_side(piece: Slice, data: Resident, settings: Settings) -> Side:
    """The plain recipe; before it is timed it trains until no batch is left that was made ahead of time."""
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
    """An epoch over as many images as a slice has, with its share of shuffling, cropping and mirroring."""
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
    """As many steps on one batch that lies ready, without a loader."""
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
    """Products of large matrices: what the device can do at most."""
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
    """The search's own setting, one fixed batch and the plain recipe, then what else is to be compared."""
    few = min(10 * len(source.classes), len(source.train.labels) // 5)
    everything = load_resident(source, piece.architecture.input_size, None, few, settings.seed)
    if piece.images > len(everything.train_labels):
        raise InputError(f"steps: {piece.steps} of {piece.batch} are more images than there are")
    drawn = torch.randperm(
        len(everything.train_labels), generator=torch.Generator().manual_seed(settings.seed)
    )[: piece.images]
    part = {"train_images": everything.train_images[drawn], "train_labels": everything.train_labels[drawn]}
    data = replace(everything, **part).to(settings.device)
    fast = (fast_dtype(settings.device), torch.channels_last)
    formats = (torch.contiguous_format, torch.channels_last)
    others = [(dtype, told) for dtype in (torch.float32, torch.bfloat16) for told in formats]
    others.remove(fast)
    return [
        our_side(piece, data, settings, *fast),
        fixed_side(piece, data, settings, fast[0]),
        plain_side(piece, everything, settings),
        *(our_side(piece, data, settings, *other) for other in others),
        *([our_side(piece, data, settings, *fast, compiled=True)] if piece.compile else []),
        *(product_side(dtype, settings.device) for dtype in (torch.float32, torch.bfloat16)),
    ]
