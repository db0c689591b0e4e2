"""Types of the values that a study keeps, validated when they are read, as a study may come from anyone."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.proxy.fidelity import Fidelity

T = TypeVar("T")

STRICT_VALUES = ConfigDict(strict=True)  # no conversions
STRICT = ConfigDict(strict=True, extra="forbid")  # no unknown keys either
_GREATEST = 2**62
_LONGEST = 100_000  # an architecture of hundreds of blocks has tens of thousands of letters


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("Input should be one line of printable characters")
    return text


Line = Annotated[str, Field(max_length=_LONGEST), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=0, le=_GREATEST)]
PositiveCount = Annotated[int, Field(ge=1, le=_GREATEST)]
Number = Annotated[float, Field(ge=0, le=_GREATEST)]
PositiveNumber = Annotated[float, Field(ge=1e-9, le=_GREATEST)]
Accuracy = Annotated[float, Field(ge=0, le=1)]


def stored_as_dict(kind: type[Any], **former: Any) -> BeforeValidator:
    """Return a validator that builds a dataclass from the keys and values that a study keeps of it.

    Args:
        kind: Dataclass to build; its field types are checked without conversion.
        former: Values of the keys that studies of earlier versions lack.
    """
    strict = dataclass(kind, config=STRICT, frozen=True)

    def build(content: object) -> object:
        return kind(**vars(strict(**{**former, **content}))) if isinstance(content, dict) else content

    return BeforeValidator(build)


StoredBudget = Annotated[Budget, stored_as_dict(Budget)]
StoredFidelity = Annotated[Fidelity, stored_as_dict(Fidelity)]


def from_options(kind: type[T], settings: Mapping[str, Any]) -> T:
    """Return a pydantic dataclass from options of a command.

    Raises:
        InputError: If a value is out of range; its key is named.
    """
    try:
        return kind(**settings)
    except ValidationError as error:
        raise InputError(first_problem(error)) from error


def read_stored(kind: type[T], content: Mapping[str, Any], study: str) -> T:
    """Return a pydantic dataclass from the keys and values that a study keeps of it.

    Args:
        kind: Dataclass to build.
        content: Keys and values as the study has them.
        study: Name of the study, for the message.

    Raises:
        InputError: If a key is missing or unknown, or a value has another type or range; the key is named.
    """
    try:
        return kind(**content)  # raises TypeError if it is no mapping
    except (TypeError, ValidationError) as error:
        raise InputError(
            f"study: {study!r} was not made by this version of nas-recalib: {first_problem(error)}"
        ) from error


def first_problem(error: Exception) -> str:
    """Return the first thing that is wrong with stored values, as `budget.macs: input should be ...`."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False, include_input=False)[0]
    keys = ".".join(str(key) for key in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "dataclass_exact_type":  # whose message names a class of this package
        message = "keys and values expected"
    return f"{keys}: {message[0].lower()}{message[1:]}" if keys else message
