"""All checks on one operator."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from nas_recalib.conformance import behaviour, tooling
from nas_recalib.conformance.subject import NotRun, Subject
from nas_recalib.errors import InputError, in_one_line, whole_number
from nas_recalib.operators.catalog import kind_of, parse_part
from nas_recalib.operators.choice import read_part
from nas_recalib.plugins import load_installed

CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        behaviour.shape,
        behaviour.groups,
        behaviour.map_sizes,
        behaviour.small_maps,
        behaviour.one_image,
        behaviour.gradcheck,
        behaviour.autocast,
        behaviour.input_kept,
        behaviour.channels,
        behaviour.costs,
        behaviour.repeatable,
        behaviour.images_apart,
        tooling.channels_last,
        tooling.torch_compile,
        tooling.torch_export,
        tooling.export_sizes,
        tooling.jit_trace,
        tooling.fx_trace,
        tooling.onnx_export,
        tooling.onnx_torchscript,
        tooling.copies,
        tooling.state_dict,
    )
}

_MOST = 10_000  # channels, and pixels of a side


class ConformanceError(AssertionError):
    """An operator fails checks.

    Attributes:
        operator: As written in a choice.
        failures: What is wrong, in one line, by name of the check.
    """

    def __init__(self, operator: str, failures: dict[str, str]) -> None:
        self.operator = operator
        self.failures = failures
        lines = [f"  {name}: {why}" for name, why in failures.items()]
        super().__init__("\n".join([f"{operator} fails {len(failures)} of {len(CHECKS)} checks", *lines]))


@dataclass(frozen=True)
class Report:
    """What was found out about an operator that fails no check.

    Attributes:
        operator: As written in a choice.
        passed: Names of the checks that it passed.
        skipped: Why each of the others was not run.
    """

    operator: str
    passed: tuple[str, ...]
    skipped: dict[str, str]

    def __str__(self) -> str:
        skipped = "; ".join(f"{name} ({why})" for name, why in self.skipped.items())
        return f"{self.operator} passes {len(self.passed)} checks" + (f"; not run: {skipped}" * bool(skipped))


def check_operator(choice: str, *, channels: int = 24, size: int = 8, skip: Collection[str] = ()) -> Report:
    """Checks that an operator keeps what every operator owes its user, whatever it computes.

    It is built as a block builds it, on the CPU. ONNX export is checked where onnx, onnxscript and
    onnxruntime are installed. torch's global generator is left as it was; what torch.compile has compiled
    before is forgotten.

    Args:
        choice: One operator as in a search space, such as `psconv(pattern=1-2)` or a registered name.
        channels: Channels of its input; a convolution is also tried with twice as many output channels.
        size: Side of the maps that it must take, in pixels; at least 2.
        skip: Names of checks not to run, such as `gradcheck` for what is not differentiable by design.

    Returns:
        Which checks passed, and why the others were not run.

    Raises:
        ConformanceError: If it fails any; all that it fails are named.
        ValueError: If the choice is not one operator that fits the channels, a name to skip is no check, or a
            number is out of range.
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
    subject.build(subject.forms[0])  # what does not fit the channels is refused here
    passed, failures = [], {}
    skipped = dict.fromkeys(skip, "as asked")
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
            except Exception as error:  # whatever an operator may do
                failures[name] = in_one_line(error)
    if failures:
        raise ConformanceError(str(subject.part), failures)
    return Report(str(subject.part), tuple(passed), skipped)
