"""What a latency holds for: a machine, a version, a way of running."""

from typing import Literal

import torch
from pydantic import Field

from nas_recalib.device import device_name, versions
from nas_recalib.errors import InputError
from nas_recalib.files import StrictModel
from nas_recalib.timing import Settings
from nas_recalib.timing.cases import DTYPES, MEMORY_FORMATS

Device = torch.device  # `torch` is a field below

MOST_IMAGES = 65_536


class Conditions(StrictModel):
    """Under what a table was made; latencies made under others are not to be compared.

    Attributes:
        kind: Of device.
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

    kind: Literal["cpu", "cuda"]
    device: str
    threads: int = Field(ge=1, le=4096)
    dtype: str = Field(pattern=f"^({'|'.join(DTYPES)})$")
    memory_format: str = Field(pattern=f"^({'|'.join(MEMORY_FORMATS)})$")
    batch: int = Field(ge=1, le=MOST_IMAGES)
    compile: bool
    seed: int = Field(ge=0, le=2**63)
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
            kind="cuda" if settings.device.type == "cuda" else "cpu",
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

    def device_here(self) -> Device:
        """The device of this machine that they are of.

        Raises:
            InputError: If there is none.
        """
        devices = [torch.device("cpu")]
        if self.kind == "cuda":
            devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        names = [device_name(device, self.threads) for device in devices]
        if self.device not in names:
            here = ", ".join(names) or "no GPU"
            raise InputError(f"latency table: made on {self.device}, here is {here}; make one here")
        return devices[names.index(self.device)]

    def settings(self, *, seconds: float) -> Settings:
        """How to time under the same conditions, on this machine.

        Raises:
            InputError: If it has no such device.
        """
        return Settings(
            self.device_here(),
            dtype=self.dtype,
            memory_format=self.memory_format,
            threads=self.threads,
            seconds=seconds,
            compile=self.compile,
            seed=self.seed,
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
