"""One trial's training: an architecture in, its learning curve or the kind of its failure out."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.data import Resident
from nas_recalib.device import free_memory
from nas_recalib.errors import Diverged
from nas_recalib.proxy.train import Epoch, Recipe, State, Training

# The CPU's allocator and the CUDA libraries raise a RuntimeError of no class of its own.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")

FailureKind = Literal[
    "out-of-memory",
    "diverged",
    "error",
    "over-budget",
    "checkpoint",  # could not be kept
    "interrupted",  # on purpose
    "lost",  # with its worker
    "abandoned",  # lost too often
    "withdrawn",  # another worker was first
]


@dataclass(frozen=True)
class Failure:
    """Why a trial has no value.

    Attributes:
        kind: What sort of thing went wrong.
        message: In one line.
        details: The traceback of an error in the program.
    """

    kind: FailureKind
    message: str
    details: str = ""


@dataclass(frozen=True, eq=False)
class Proxy:
    """Everything a trial's training needs besides the architecture; the same for all trials of a study."""

    data: Resident
    width: float
    epochs: int
    recipe: Recipe
    dtype: torch.dtype
    seed: int

    @property
    def course(self) -> str:
        """What decides the course of a training besides the architecture, as text."""
        images = (*self.data.train_images.shape, len(self.data.val_labels), self.data.split)
        gates = "" if self.recipe.gate_fan == "fan_out" else f" {self.recipe.gate_fan}"  # as in 0.1
        return f"{images} {self.width} {self.epochs} {self.recipe}{gates} {self.dtype} {self.seed}"

    def on(self, device: torch.device) -> "Proxy":
        """The same, with its images on another device."""
        return replace(self, data=self.data.to(device))

    def train(self, architecture: Architecture, report: Callable[[Epoch], bool]) -> list[Epoch] | Failure:
        """Trains the twin of an architecture.

        Args:
            architecture: Whose twin.
            report: Called after every epoch; a true answer ends the trial there.

        Returns:
            The whole learning curve, or why there is none.
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
        self, architecture: Architecture, start: State | None = None, parts: int = 1
    ) -> Iterator[Training | Failure]:
        """Trains the twin of an architecture, an epoch at a time.

        Args:
            architecture: Whose twin.
            start: The state of a training of the same proxy and architecture; this one goes on from there,
                as if it had not been left.
            parts: What each batch is split into; see `Training`.

        Yields:
            The training after each of its epochs; if something goes wrong, at last, why. By then nothing
            of the training is left in memory but its curve.
        """
        training = None
        try:
            training = self._training(architecture, parts)
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
            training.close()  # whoever was given it may hold it still
        if failure.kind == "out-of-memory":
            free_memory()  # out here, where no traceback holds the tensors any more
        yield failure

    def _training(self, architecture: Architecture, parts: int) -> Training:
        shape = architecture.shape.scaled(self.width)
        given = (shape, architecture.blocks, self.data.num_classes, 3, self.seed, self.recipe.gate_fan)
        network = build_seeded(*given)
        return Training(
            network,
            self.data,
            self.epochs,
            seed=self.seed,
            dtype=self.dtype,
            recipe=self.recipe,
            parts=parts,
        )


def explain(error: Exception) -> Failure:
    """The kind of failure that an exception is."""
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    )
    if out_of_memory:
        return Failure("out-of-memory", message)
    return Failure("error", f"{type(error).__name__}: {message}", traceback.format_exc())
