"""Conformance suite: runs all checks on one operator and reports the results."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from nas_recalib.conformance import behaviour, tooling
from nas_recalib.conformance.subject import NotRun, Subject
from nas_recalib.errors import InputError, in_one_line, whole_number
from nas_recalib.operators.catalog import kind_of, parse_part
from nas_recalib.operators.choice import read_part
from nas_recalib.plugins import load_installed

CHECKS: dict[str, Callable[[Subject], None]] = {  # the public functions of both modules
    name: function
    for module in (behaviour, tooling)
    for name, function in vars(module).items()
    if getattr(function, "__module__", "") == module.__name__ and not name.startswith("_")
}

_MOST = 10_000  # channels, and pixels of a side


class ConformanceError(AssertionError):
    """Failure of an operator in one or more checks.

    Attributes:
        operator: Operator as written in a choice.
        failures: One line on the failure by name of the check.
    """

    def __init__(self, operator: str, failures: dict[str, str]) -> None:
        self.operator = operator
        self.failures = failures
        lines = [f"  {name}: {why}" for name, why in failures.items()]
        super().__init__("\n".join([f"{operator} fails {len(failures)} of {len(CHECKS)} checks", *lines]))


@dataclass(frozen=True)
class Report:
    """Result of an operator that fails no check.

    Attributes:
        operator: Operator as written in a choice.
        passed: Names of the checks that it passed.
        skipped: Reason why a check was not run, by name of the check.
    """

    operator: str
    passed: tuple[str, ...]
    skipped: dict[str, str]

    def __str__(self) -> str:
        skipped = "; ".join(f"{name} ({why})" for name, why in self.skipped.items())
        return f"{self.operator} passes {len(self.passed)} checks" + (f"; not run: {skipped}" * bool(skipped))


def check_operator(choice: str, *, channels: int = 24, size: int = 8, skip: Collection[str] = ()) -> Report:
    """Check that an operator meets the requirements on every operator, whatever it computes.

    The operator is built as a block builds it, on the CPU. ONNX export is checked if onnx, onnxscript and
    onnxruntime are installed. torch's global generator is left unchanged; the cache of torch.compile is
    cleared.

    Args:
        choice: One operator as in a search space, such as `psconv(pattern=1-2)` or a registered name.
        channels: Number of input channels; a convolution is also tested with twice as many output channels.
        size: Side of the input maps in pixels; at least 2.
        skip: Names of checks to skip, such as `gradcheck` for an operator that is not differentiable.

    Returns:
        Names of the checks that passed, and reasons why the others were not run.

    Raises:
        ConformanceError: If any check fails; the message names all that do.
        ValueError: If the choice is not one operator that fits the channels, a name to skip is not a check,
            or a number is out of range.
    """
    if not isinstance(choice, str):
        raise InputError(f"choice: {choice!r} is not an operator; write it like 'psconv(pattern=1-2)'")
    channels = whole_number("channels", channels, 1, _MOST)
    size = whole_number("size", size, 2, _MOST)
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise InputError(f"skip: {skip!r} is not a list of names of checks, such as ['gradcheck']")
    unknown = [name for name in skip if name not in list(CHECKS)]
    if unknown:
        raise ValueError(f"skip: {unknown[0]!r} is not a check; allowed: {', '.join(CHECKS)}")
    load_installed()
    kind = kind_of(read_part(choice)[0])
    subject = Subject(parse_part(choice, kind), kind, channels, size)
    subject.build(subject.forms[0])  # raises if the operator does not fit the channels
    passed, failures = [], {}
    skipped = dict.fromkeys(skip, "as requested")
    with torch.random.fork_rng(devices=[]):
        for name, check in CHECKS.items():
            if name in skipped:
                continue
            try:
                check(subject)
                passed.append(name)
            except NotRun as reason:
                skipped[name] = str(reason)
            except AssertionError as error:
                failures[name] = str(error) or in_one_line(error)
            except Exception as error:  # an operator may raise anything
                failures[name] = in_one_line(error)
    if failures:
        raise ConformanceError(str(subject.part), failures)
    return Report(str(subject.part), tuple(passed), skipped)
