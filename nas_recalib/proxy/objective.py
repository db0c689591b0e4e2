"""Training of one trial: from an architecture to its learning curve, or to the kind of its failure."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.data import Resident
from nas_recalib.device import free_memory
from nas_recalib.errors import Diverged
from nas_recalib.proxy.evaluation import State
from nas_recalib.proxy.train import Epoch, Recipe, Training

# The CPU's allocator and the CUDA libraries raise a plain RuntimeError.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")

FailureKind = Literal[
    "out-of-memory",
    "diverged",
    "error",
    "over-budget",
    "checkpoint",  # its checkpoint could not be written
    "interrupted",  # by the user
    "lost",  # its worker died
    "abandoned",  # lost too often
    "withdrawn",  # a duplicate of another worker's trial
]


@dataclass(frozen=True)
class Failure:
    """Reason why a trial has no value.

    Attributes:
        kind: Kind of the failure.
        message: Message in one line.
        details: Traceback of an error in the program.
    """

    kind: FailureKind
    message: str
    details: str = ""


@dataclass(frozen=True, eq=False)
class Proxy:
    """Settings and data of a trial's training, the same for all trials of a study.

    Attributes:
        data: Training and validation images.
        width: Factor on the network's channels.
        epochs: Number of passes over the training images.
        recipe: Optimizer, schedule and loss.
        dtype: Data type of convolutions and products.
        seed: Seed of the initial weights, the batches and the augmentation.
        with_raw: Whether to evaluate raw weights besides averaged ones.
    """

    data: Resident
    width: float
    epochs: int
    recipe: Recipe
    dtype: torch.dtype
    seed: int
    with_raw: bool = False

    @property
    def fingerprint(self) -> str:
        """Text of all that decides a learning curve besides the architecture, compared by checkpoints."""
        images = (*self.data.train_images.shape, len(self.data.val_labels), self.data.split)
        gates = "" if self.recipe.gate_fan == "fan_out" else f" {self.recipe.gate_fan}"  # as in 0.1
        weights = "" if self.recipe.evaluated == "raw" else f" {self.recipe.evaluated}"
        return f"{images} {self.width} {self.epochs} {self.recipe}{gates}{weights} {self.dtype} {self.seed}"

    def to(self, device: torch.device) -> "Proxy":
        """Return the proxy with its images on another device."""
        return replace(self, data=self.data.to(device))

    def train(self, architecture: Architecture, report: Callable[[Epoch], bool]) -> list[Epoch] | Failure:
        """Train the scaled network of an architecture.

        Args:
            architecture: Architecture at full size.
            report: Function called after every epoch; if it returns True, the training ends there.

        Returns:
            The learning curve, or the failure.
        """
        curve: list[Epoch] = []
        for step in self.steps(architecture):
            if isinstance(step, Failure):
                return step
            curve = step.curve
            if report(curve[-1]):
                break
        return curve

    def steps(
        self, architecture: Architecture, start: State | None = None, micro_batches: int = 1
    ) -> Iterator[Training | Failure]:
        """Train the scaled network of an architecture, an epoch at a time.

        Args:
            architecture: Architecture at full size.
            start: State of an interrupted training of the same proxy and architecture, to resume.
            micro_batches: Number of parts of each batch; see `Training`.

        Yields:
            The training after each of its epochs; if it fails, the failure last. By then the training has
            released all memory but its curve.
        """
        training = None
        try:
            training = self._training(architecture, micro_batches)
            if start is not None:
                training.load_state_dict(start)
            for _ in training:
                yield training
            return
        except Diverged as error:
            failure = Failure("diverged", str(error))
        except Exception as error:
            failure = explain(error)
        if training is not None:
            training.close()  # the caller may still hold a reference
        if failure.kind == "out-of-memory":
            free_memory()  # outside the except clause, whose traceback holds the tensors
        yield failure

    def _training(self, architecture: Architecture, micro_batches: int) -> Training:
        network = build_seeded(
            architecture.shape.scaled(self.width),
            architecture.blocks,
            self.data.num_classes,
            3,
            self.seed,
            self.recipe.gate_fan,
        )
        return self.training_of(network, micro_batches=micro_batches)

    def training_of(
        self,
        network: nn.Module,
        *,
        micro_batches: int = 1,
        before_step: Callable[[int], None] | None = None,
    ) -> Training:
        """Return the training of a network with these settings; see `Training`."""
        return Training(
            network,
            self.data,
            self.epochs,
            seed=self.seed,
            dtype=self.dtype,
            recipe=self.recipe,
            micro_batches=micro_batches,
            with_raw=self.with_raw,
            before_step=before_step,
        )


def explain(error: Exception) -> Failure:
    """Return the failure that an exception stands for."""
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    )
    if out_of_memory:
        return Failure("out-of-memory", message)
    return Failure("error", f"{type(error).__name__}: {message}", traceback.format_exc())
