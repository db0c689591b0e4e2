"""Conditions of a latency table: device, versions, dtype, batch size; and whether two tables match."""

from typing import Literal

import torch
from pydantic import Field

from nas_recalib.device import device_name, versions
from nas_recalib.errors import InputError
from nas_recalib.files import StrictModel
from nas_recalib.timing.cases import DTYPES, MEMORY_FORMATS, Settings

Device = torch.device  # `torch` is a field below

MAX_BATCH = 65_536
_SHARED = ("dtype", "memory_format", "threads", "compile", "seed")  # with `Settings`


class Conditions(StrictModel):
    """Conditions under which a table was measured; latencies are comparable only under the same conditions.

    Attributes:
        kind: Type of the device, "cpu" or "cuda".
        device: Name of the processor or GPU, with the number of threads of a CPU.
        threads: Number of CPU threads.
        dtype: Type of the convolutions: float32, or bfloat16 under autocast.
        memory_format: Memory format of inputs and weights.
        batch: Batch size.
        compile: Whether blocks and the parts between them were compiled.
        seed: Seed of the rounds' networks, of inputs and of weights.
        nas_recalib: Version of this package.
        torch: Version of torch.
    """

    kind: Literal["cpu", "cuda"]
    device: str
    threads: int = Field(ge=1, le=4096)
    dtype: str = Field(pattern=f"^({'|'.join(DTYPES)})$")
    memory_format: str = Field(pattern=f"^({'|'.join(MEMORY_FORMATS)})$")
    batch: int = Field(ge=1, le=MAX_BATCH)
    compile: bool
    seed: int = Field(ge=0, le=2**63)
    nas_recalib: str
    torch: str

    @classmethod
    def of(cls, settings: Settings, batch: int) -> "Conditions":
        """Return the conditions of timings on this machine with these settings.

        Raises:
            InputError: If the batch is not allowed.
        """
        require_batch(batch)
        known = versions()
        return cls(
            kind="cuda" if settings.device.type == "cuda" else "cpu",
            device=device_name(settings.device, settings.threads),
            batch=batch,
            nas_recalib=known["nas-recalib"],
            torch=known["torch"],
            **{name: getattr(settings, name) for name in _SHARED},
        )

    def device_here(self) -> Device:
        """Return the device of this machine that has these conditions.

        Raises:
            InputError: If this machine has no such device.
        """
        devices = [torch.device("cpu")]
        if self.kind == "cuda":
            devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        names = [device_name(device, self.threads) for device in devices]
        if self.device not in names:
            here = ", ".join(names) or "no GPU"
            raise InputError(
                f"latency table: measured on {self.device}, but this machine has {here}; "
                "run 'nas-recalib latency' here"
            )
        return devices[names.index(self.device)]

    def settings(self, *, seconds: float) -> Settings:
        """Return settings to time under the same conditions on this machine.

        Raises:
            InputError: If this machine has no such device.
        """
        shared = {name: getattr(self, name) for name in _SHARED}
        return Settings(self.device_here(), seconds=seconds, **shared)

    def difference(self, other: "Conditions") -> str | None:
        """Return the first condition that differs, such as `threads 2, not 1`; None if there is none."""
        differing = (name for name, value in self if value != getattr(other, name))
        name = next(differing, None)
        return name and f"{name.replace('_', '-')} {getattr(self, name)}, not {getattr(other, name)}"


def require_batch(batch: int) -> None:
    """Raise InputError unless the batch size is allowed."""
    if not 1 <= batch <= MAX_BATCH:
        raise InputError(f"batch: {batch} is not from 1 to {MAX_BATCH:,}")
