"""Syntax of operator choices such as `psconv(pattern=1-2-1-4)+ab`; names are looked up in catalog.py."""

import re
from dataclasses import dataclass

Value = int | bool | str | tuple[int, ...]

_PART = re.compile(r"(?P<name>[a-z][a-z0-9-]*)(?:\((?P<arguments>[^()]*)\))?")
_ARGUMENT = re.compile(r"\s*(?P<key>[a-z][a-z0-9_]*)\s*=\s*(?P<value>[A-Za-z0-9_-]+)\s*")


@dataclass(frozen=True, order=True)
class Part:
    """Name of an operator and its arguments that differ from the defaults, sorted by name."""

    name: str
    arguments: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        return f"{self.name}({', '.join(f'{key}={_write(value)}' for key, value in self.arguments)})"


def split_parts(text: str) -> list[str]:
    """Split `a(b=1)+c` at the plus signs.

    Raises:
        ValueError: If a part is empty.
    """
    parts = [part.strip() for part in text.split("+")]
    if not all(parts):
        raise ValueError(f"{text!r} is not an operator choice; write it like psconv(pattern=1-2)+ab")
    return parts


def read_part(text: str) -> tuple[str, dict[str, str]]:
    """Split `name` or `name(key=value, ...)` into the name and the arguments, whose values stay text.

    Raises:
        ValueError: If the text has another form or names an argument twice.
    """
    match = _PART.fullmatch(text.strip())
    if match is None:
        misspelt = _PART.fullmatch(text.strip().lower().replace("_", "-"))
        example = "write it like psconv or psconv(pattern=1-2)"
        hint = "names have lower-case letters and hyphens, like ab-plus" if misspelt else example
        raise ValueError(f"{text!r} is not an operator; {hint}")
    arguments: dict[str, str] = {}
    for item in match["arguments"].split(",") if match["arguments"] else ():
        argument = _ARGUMENT.fullmatch(item)
        if argument is None:
            raise ValueError(
                f"{item.strip()!r} in {text!r} is not an argument; write it like r=2 or pattern=1-2"
            )
        if argument["key"] in arguments:
            raise ValueError(f"{argument['key']!r} is given twice in {text!r}")
        arguments[argument["key"]] = argument["value"]
    return match["name"], arguments


def _write(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value)
