"""Budgets: hard upper limits on cost, read and written as people do."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal

from nas_recalib.errors import InputError

_NUMBER = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)(e\+?(?P<exponent>\d{1,2}))?\s*(?P<unit>[a-z]*)", re.I)
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_quantity(text: str, name: str) -> int:
    """Reads 4G, 4.1e9, 500M or 26000000, rounded down.

    Raises:
        InputError: If it is nothing of the kind, zero, or beyond all counting.
    """
    return _parse(text, name, _COUNTS, "a quantity; write it like 4G, 4.1e9 or 500M")


def parse_latency(text: str, name: str = "latency") -> int:
    """Reads 20ms, 1.5s or 800us as nanoseconds, rounded down.

    Raises:
        InputError: If it is nothing of the kind, zero, or has no unit.
    """
    return _parse(text, name, _DURATIONS, "a duration; write it like 20ms, 1.5s or 800us")


def parse_memory(text: str, name: str = "memory") -> int:
    """Reads 300MB, 1.5GiB or 500MiB as bytes, rounded down.

    Raises:
        InputError: If it is nothing of the kind, zero, or has no unit.
    """
    return _parse(text, name, _SIZES, "a size; write it like 300MB, 1.5GiB or 500MiB")


def _parse(text: str, name: str, units: Mapping[str, int], expected: str) -> int:
    match = _NUMBER.fullmatch(text.strip())
    value = 0
    if match and match["unit"].lower() in units:
        number = Decimal(match["number"]).scaleb(int(match["exponent"] or 0))
        value = int(number * units[match["unit"].lower()])
    if not 1 <= value < 2**62:
        raise InputError(f"{name}: {text!r} is not {expected}")
    return value


def format_quantity(value: int) -> str:
    """Writes 4089184256 as 4.089G."""
    for unit, power in (("G", 9), ("M", 6), ("k", 3)):
        if value >= 10**power:
            return f"{value / 10**power:.3f}{unit}"
    return str(value)


def format_latency(nanoseconds: int) -> str:
    """Writes 12345000 as 12.345 ms."""
    return f"{nanoseconds / 10**6:.3f} ms"


def format_memory(size: int) -> str:
    """Writes 300000000 bytes as 300.0 MB."""
    return f"{size / 10**6:.1f} MB"


def format_cost(name: str, value: int) -> str:
    """Writes a cost with its name: 4.089G macs, 12.345 ms latency."""
    write = {"latency": format_latency, "memory": format_memory}.get(name, format_quantity)
    return f"{write(value)} {name}"


def format_exactly(name: str, value: int) -> str:
    """Writes a cost with its name, to the last digit: 4,089,184,256 macs, 12.345678 ms latency."""
    return f"{value / 10**6:,} ms {name}" if name == "latency" else f"{value:,} {name}"


@dataclass(frozen=True)
class Budget:
    """Upper limits; None is no limit.

    Attributes:
        macs: Multiply-accumulates for one image.
        params: Parameters.
        latency: Nanoseconds.
        memory: Bytes, at the peak.
    """

    macs: int | None = None
    params: int | None = None
    latency: int | None = None
    memory: int | None = None

    @classmethod
    def parse(
        cls,
        macs: str | None = None,
        params: str | None = None,
        latency: str | None = None,
        memory: str | None = None,
    ) -> "Budget":
        """Reads limits as the command line takes them.

        Raises:
            InputError: If one is not what it should be; the option is named.
        """
        return cls(
            None if macs is None else parse_quantity(macs, "budget"),
            None if params is None else parse_quantity(params, "params"),
            None if latency is None else parse_latency(latency),
            None if memory is None else parse_memory(memory),
        )

    def limits(self) -> dict[str, int]:
        """The limits there are, by name."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}

    def allows(self, costs: Mapping[str, int]) -> bool:
        """Whether costs, by name, are within every limit; all that are limited must be there."""
        return all(costs[name] <= limit for name, limit in self.limits().items())

    def __str__(self) -> str:
        limits = [format_cost(name, limit).replace(".000 ms", " ms") for name, limit in self.limits().items()]
        return " and ".join(limits) or "no limit"
