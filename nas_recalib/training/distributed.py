"""Distributed training under torchrun: joining its processes, collectives, replication of the network."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nas_recalib.errors import InputError, OtherProcessEnded

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process and the number of processes that train together; a single one communicates with none.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: Device that this process trains on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process reads and writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sums of all processes' values, in every process."""
        total = values.clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def union(self, values: Mapping[K, T]) -> dict[K, T]:
        """Return the entries of all processes' mappings, in every process."""
        if self.size == 1:
            return dict(values)
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, dict(values))
        return {key: value for entries in everyone for key, value in entries.items()}

    def from_main(self, produce: Callable[[], T]) -> T:
        """Return what the main process produces, in every process.

        Raises:
            InputError: In every process, if the main one does.
        """
        if self.size == 1:
            return produce()
        outcome: list[Any] = [None]
        if self.is_main:
            try:
                outcome = [produce()]
            except InputError as error:
                outcome = [error]
        dist.broadcast_object_list(outcome, src=0)
        if isinstance(outcome[0], InputError):
            raise outcome[0]
        result: T = outcome[0]
        return result

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run a block in the main process before the others, so that only it downloads files."""
        if self.size > 1 and not self.is_main:
            dist.barrier()
        try:
            yield
        finally:
            if self.size > 1 and self.is_main:
                dist.barrier()

    def replicate(self, network: nn.Module) -> nn.Module:
        """Return a module of the same weights whose gradients are averaged over all processes."""
        if self.size == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        replica = DistributedDataParallel(network, ids, gradient_as_bucket_view=True)
        replica.broadcast_buffers = False  # average_buffers, once an epoch, replaces a broadcast every step
        return replica

    def average_buffers(self, network: nn.Module) -> None:
        """Give every process the mean of all processes' buffers, such as the norms' running statistics."""
        if self.size > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.sum(buffer) / self.size)


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the process group of torchrun while the context lasts; a nested context does nothing.

    Processes can leave the group only once: several trainings in one process need one `join_world` around
    them.

    Args:
        device: Device to train on. Under torchrun, "cuda" is the GPU of the process's local rank.

    Yields:
        This process and the number of processes.

    Raises:
        InputError: If variables of torchrun are missing or invalid, or there are more processes than GPUs.
        OtherProcessEnded: If another of the processes ends early.
    """
    size = _variable("WORLD_SIZE") if "WORLD_SIZE" in os.environ else 1
    if size == 1:
        yield World(0, 1, device)
        return
    rank, local_rank = _variable("RANK"), _variable("LOCAL_RANK")
    if device.type == "cuda":
        device = _own_gpu(local_rank)
    joined = dist.is_initialized()
    if not joined:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        with warnings.catch_warnings():
            # Strides of 1x1 weights are ambiguous; autograd and the reducer choose different ones.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield World(rank, size, device)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise OtherProcessEnded(
            f"another of the {size} processes ended early; run the same command again to resume"
        ) from error
    finally:
        if not joined:
            dist.destroy_process_group()


def _own_gpu(local_rank: int) -> torch.device:
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise InputError(f"device: this machine has {gpus} GPUs; start at most one process per GPU")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _variable(name: str) -> int:
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        raise InputError(f"{name} is not a number; start distributed training with torchrun") from None
