"""What a worker is told to train."""

from dataclasses import dataclass

from nas_recalib.architecture import Architecture


@dataclass(frozen=True)
class Job:
    """One training, or the rest of one, as it is handed to a worker.

    Attributes:
        number: Of its trial in the study.
        architecture: Whose twin is trained.
        after: Number of the trial whose checkpoint it goes on from.
        parts: Parts that a batch is split into, whose gradients are summed up.
    """

    number: int
    architecture: Architecture
    after: int | None = None
    parts: int = 1
