"""What a latency holds for: a machine, a version, a way of running."""

from pydantic import Field

from nas_recalib.device import device_name, versions
from nas_recalib.errors import InputError
from nas_recalib.files import StrictModel
from nas_recalib.timing import Settings

MOST_IMAGES = 65_536


class Conditions(StrictModel):
    """Under what a table was made; latencies made under others are not to be compared.

    Attributes:
        device: In words, with the threads of a CPU.
        threads: Of the CPU.
        dtype: Of convolutions: float32, or bfloat16 under autocast.
        memory_format: Of inputs and weights.
        batch: Images at once.
        compile: Whether blocks and what is between them were compiled.
        seed: Of which choices stood where in which round, and of inputs and weights.
        nas_recalib: Version of this package.
        torch: Version of torch.
    """

    device: str
    threads: int = Field(ge=1)
    dtype: str
    memory_format: str
    batch: int = Field(ge=1)
    compile: bool
    seed: int = Field(ge=0)
    nas_recalib: str
    torch: str

    @classmethod
    def of(cls, settings: Settings, batch: int) -> "Conditions":
        """Those of timings made now.

        Raises:
            InputError: If the batch is not allowed.
        """
        require_batch(batch)
        known = versions()
        return cls(
            device=device_name(settings.device, settings.threads),
            threads=settings.threads,
            dtype=settings.dtype,
            memory_format=settings.memory_format,
            batch=batch,
            compile=settings.compile,
            seed=settings.seed,
            nas_recalib=known["nas-recalib"],
            torch=known["torch"],
        )

    def difference(self, other: "Conditions") -> str | None:
        """The first thing that is not alike, in words: `threads 2, here 1`."""
        for name, value in self:
            here = getattr(other, name)
            if value != here:
                return f"{name.replace('_', '-')} {value}, here {here}"
        return None


def require_batch(batch: int) -> None:
    """Raises InputError unless as many images could be a batch."""
    if not 1 <= batch <= MOST_IMAGES:
        raise InputError(f"batch: {batch} is not from 1 to {MOST_IMAGES:,}")
