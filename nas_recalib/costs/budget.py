"""Budgets: hard upper limits on costs, and costs read and written as text such as 4G or 20ms."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from nas_recalib.errors import InputError

_NUMBER = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)(e\+?(?P<exponent>\d{1,2}))?\s*(?P<unit>[a-z]*)", re.I)
_GREATEST = 2**62
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_NAMES = {"macs": "MACs"}
_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_quantity(text: str | float, name: str) -> int:
    """Return a quantity such as 4G, 4.1e9, 500M or 26000000, or a number, rounded down.

    Raises:
        InputError: If it is no quantity, zero, or at least 2**62; `name` stands in the message.
    """
    return _parse(text, name, _COUNTS, "a quantity; write it like 4G, 4.1e9 or 500M")


def parse_latency(text: str, name: str = "latency") -> int:
    """Return a duration such as 20ms, 1.5s or 800us in nanoseconds, rounded down.

    Raises:
        InputError: If it is no duration, zero, or has no unit; `name` stands in the message.
    """
    return _parse(text, name, _DURATIONS, "a duration; write it like 20ms, 1.5s or 800us")


def parse_memory(text: str, name: str = "memory") -> int:
    """Return a size such as 300MB, 1.5GiB or 500MiB in bytes, rounded down.

    Raises:
        InputError: If it is no size, zero, or has no unit; `name` stands in the message.
    """
    return _parse(text, name, _SIZES, "a size; write it like 300MB, 1.5GiB or 500MiB")


def _parse(text: object, name: str, units: Mapping[str, int], expected: str) -> int:
    match = _NUMBER.fullmatch(text.strip()) if isinstance(text, str) else None
    value = _whole_part(text) if "" in units else 0
    if match and match["unit"].lower() in units:
        number = Decimal(match["number"]).scaleb(int(match["exponent"] or 0))
        value = int(number * units[match["unit"].lower()])
    if not 1 <= value < _GREATEST:
        raise InputError(f"{name}: {text!r} is not {expected}")
    return value


def _whole_part(value: object) -> int:
    """Return a number rounded down, and 0 for anything but a finite number."""
    if isinstance(value, bool):
        return 0
    finite = isinstance(value, Integral) or (isinstance(value, Real) and math.isfinite(value))
    return int(value) if finite else 0  # type: ignore[call-overload]


def format_quantity(value: int) -> str:
    """Return 4089184256 as 4.089G."""
    for unit, power in (("G", 9), ("M", 6), ("k", 3)):
        if value >= 10**power:
            return f"{value / 10**power:.3f}{unit}"
    return str(value)


def format_latency(nanoseconds: int) -> str:
    """Return 12345000 nanoseconds as 12.345 ms."""
    return f"{nanoseconds / 10**6:.3f} ms"


def format_memory(size: int) -> str:
    """Return 300000000 bytes as 300.0 MB."""
    return f"{size / 10**6:.1f} MB"


def format_cost(name: str, value: int) -> str:
    """Return a cost with its name: 4.089G MACs, 12.345 ms latency."""
    write = {"latency": format_latency, "memory": format_memory}.get(name, format_quantity)
    return f"{write(value)} {_NAMES.get(name, name)}"


def format_exactly(name: str, value: int) -> str:
    """Return a cost with its name, to the last digit: 4,089,184,256 MACs, 12.345678 ms latency."""
    return f"{value / 10**6:,} ms {name}" if name == "latency" else f"{value:,} {_NAMES.get(name, name)}"


@dataclass(frozen=True)
class Budget:
    """Upper limits on costs, None for no limit. Numbers of any type are rounded down.

    Attributes:
        macs: Most multiply-accumulates for one image.
        params: Most parameters.
        latency: Longest latency, in nanoseconds.
        memory: Greatest peak memory, in bytes.

    Raises:
        InputError: If a limit is not a number of at least 1; it is named.
    """

    macs: int | None = None
    params: int | None = None
    latency: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        limits: Mapping[str, Any] = self.limits()
        for name, limit in limits.items():
            value = _whole_part(limit)
            if not 1 <= value < _GREATEST:
                hint = f"; use Budget.parse({name}=...) to read text" if isinstance(limit, str) else ""
                raise InputError(f"{name}: {limit!r} is not a number from 1 to {_GREATEST - 1:,}{hint}")
            object.__setattr__(self, name, value)

    @classmethod
    def parse(
        cls,
        macs: str | float | None = None,
        params: str | float | None = None,
        latency: str | None = None,
        memory: str | None = None,
    ) -> "Budget":
        """Return a budget from limits as the command line takes them; the first two may also be numbers.

        Raises:
            InputError: If a limit cannot be read; the option is named.
        """
        return cls(
            None if macs is None else parse_quantity(macs, "budget"),
            None if params is None else parse_quantity(params, "params"),
            None if latency is None else parse_latency(latency),
            None if memory is None else parse_memory(memory),
        )

    def limits(self) -> dict[str, int]:
        """Return the limits that are set, by name."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}

    def allows(self, costs: Mapping[str, int]) -> bool:
        """Return whether costs, by name, are within every limit; every limited cost must be given."""
        return all(costs[name] <= limit for name, limit in self.limits().items())

    def __str__(self) -> str:
        limits = [format_cost(name, limit).replace(".000 ms", " ms") for name, limit in self.limits().items()]
        return " and ".join(limits) or "no limit"
