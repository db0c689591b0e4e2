"""The form of what a study keeps. Whoever wrote it, nothing of it is used before its form is known."""

from collections.abc import Mapping
from typing import Any

from nas_recalib.costs import Budget
from nas_recalib.proxy.fidelity import Fidelity

_LONGEST = 100_000  # an architecture of hundreds of blocks has tens of thousands of letters
_GREATEST = 2**62


def is_text(value: object) -> bool:
    return type(value) is str


def is_line(value: object) -> bool:
    """Whether it is text that may be shown as it is."""
    return isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST


def is_whole(value: object, least: int = 0, most: int = _GREATEST) -> bool:
    return type(value) is int and least <= value <= most


def is_number(value: object, least: float = 0.0, most: float = _GREATEST) -> bool:
    return type(value) in (int, float) and least <= value <= most  # type: ignore[operator]


def is_any_number(value: object) -> bool:
    """Whether it is a number, be it none that is finite."""
    return type(value) is float or is_number(value, -_GREATEST)


def is_accuracy(value: object) -> bool:
    return is_number(value, 0, 1)


def require_form(sound: Mapping[str, bool]) -> None:
    """Raises TypeError naming the first key that is not of its form."""
    for key, is_so in sound.items():
        if not is_so:
            raise TypeError(f"{key} is not of its form")


def read_budget(content: Mapping[str, Any]) -> Budget:
    """What a study keeps of its budget.

    Raises:
        TypeError: If it is of another form.
    """
    require_form({f"budget.{key}": value is None or is_whole(value, 1) for key, value in content.items()})
    return Budget(**content)


def read_fidelity(content: Mapping[str, Any]) -> Fidelity:
    """What a study keeps of a fidelity.

    Raises:
        TypeError: If it is of another form.
        InputError: If a value is out of range.
    """
    if not isinstance(content, Mapping):
        raise TypeError("a fidelity is not of its form")
    whole = ("images", "validation", "resolution", "epochs")
    form = {f"fidelity.{key}": is_whole(content[key], 1, 2**31) for key in whole if content[key] is not None}
    require_form({**form, "fidelity.width": is_number(content["width"])})
    return Fidelity(**content)
