"""Formats of written choices, so that files and studies of earlier versions keep their meaning.

The default of an operator's argument can change, but a study, an architecture file or a search space written
before the change must keep meaning the operator of its time. Texts therefore have a format:

* 1, of versions before 0.2: `msar` has no batch norm before its sigmoid, and its sliding strategy at scale 1
  alone is the regional one; a depthwise `psconv` gives each block of channels one dilation, in the shortest
  period of its pattern.
* 2: `msar` is that of the paper's section 3.2, and a depthwise `psconv` that of its appendix A.

In memory a part always has the meaning of format 2. Texts are written in the oldest format that can express
them, so that a file of format 1 is written back unchanged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from nas_recalib.operators.catalog import BlockChoice
from nas_recalib.operators.choice import Part, read_part, split_parts

Dilation = TypeVar("Dilation", int, str)

FORMATS = (1, 2)
LATEST = FORMATS[-1]


@dataclass(frozen=True)
class _Change:
    """Default that format 2 changed.

    Attributes:
        operators: Names of the operators.
        argument: Name of the argument, which format 1 did not have.
        before: Value that format 1 means where the argument is not written.
        now: Default of format 2.
        depthwise: Whether only backbones of depthwise convolutions are affected.
    """

    operators: tuple[str, ...]
    argument: str
    before: str
    now: str
    depthwise: bool = False


_CHANGES = (
    _Change(("msar", "msar-multi"), "norm", "hidden", "both"),
    _Change(("psconv",), "depthwise", "blocks", "interleaved", depthwise=True),
)


def modern_text(text: str, number: int, *, depthwise: bool) -> str:
    """Return a text of another format in the latest one, with the same meaning.

    Args:
        text: Choice, or one operator of it.
        number: Number of the text's format.
        depthwise: Whether the backbone's 3x3 convolutions are depthwise.

    Raises:
        ValueError: If the text is not a choice.
    """
    if number == LATEST:
        return text
    return "+".join(_modern_part(part, depthwise) for part in split_parts(text))


def require_applicable(part: Part, *, depthwise: bool) -> None:
    """Refuse an argument that makes no difference in a backbone: equal networks have equal choices.

    Raises:
        ValueError: If the argument is for depthwise convolutions, and the backbone has none.
    """
    for change in _CHANGES:
        matters = depthwise or not change.depthwise
        if part.name in change.operators and change.argument in dict(part.arguments) and not matters:
            needed = "is for depthwise convolutions, and this backbone has none"
            raise ValueError(f"{part.name}: {change.argument} {needed}")


def write_in_format(choice: BlockChoice, number: int, *, depthwise: bool) -> str:
    """Return the text of a choice in a format; `modern_text` and a parser give the choice back."""
    parts = (choice.convolution, choice.recalibration)
    return str(BlockChoice(*(write_part_in_format(part, number, depthwise=depthwise) for part in parts)))


def write_part_in_format(part: Part, number: int, *, depthwise: bool) -> Part:
    """Return the part whose text in a format means the given part."""
    change, arguments = _change(part.name, depthwise), dict(part.arguments)
    if number == LATEST or change is None or _is_unaffected(part.name, arguments):
        return part
    value = arguments.pop(change.argument, change.now)
    if value != change.before:
        arguments[change.argument] = value
    return replace(part, arguments=tuple(sorted(arguments.items())))


def oldest_format(parts: Iterable[Part], *, depthwise: bool) -> int:
    """Return the number of the oldest format that can express the parts."""
    return FORMATS[0] if all(_was_expressible(part, depthwise) for part in parts) else LATEST


def _was_expressible(part: Part, depthwise: bool) -> bool:
    """Return whether a text of format 1 means this part."""
    change, arguments = _change(part.name, depthwise), dict(part.arguments)
    if change is None or _is_unaffected(part.name, arguments):
        return True
    if arguments.get(change.argument) != change.before:
        return False
    pattern, scales = arguments.get("pattern"), arguments.get("scales")
    was_regional = arguments.get("strategy") == "sliding" and isinstance(scales, tuple) and set(scales) == {1}
    return not was_regional and (not isinstance(pattern, tuple) or _period(pattern) == pattern)


def _modern_part(text: str, depthwise: bool) -> str:
    name, given = read_part(text)
    change = _change(name, depthwise)
    if change is None or change.argument in given:
        return text
    arguments = {**given, change.argument: change.before}
    if given.get("strategy") == "sliding" and set(given.get("scales", "").split("-")) == {"1"}:
        del arguments["strategy"]
    if name == "psconv" and "pattern" in given:
        pattern = _period(tuple(given["pattern"].split("-")))
        if _is_unaffected(name, {"pattern": pattern}):
            return text
        arguments["pattern"] = "-".join(pattern)
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})"


def _is_unaffected(operator: str, arguments: Mapping[str, object]) -> bool:
    """Return whether an operator is the same in all formats: `psconv` with one dilation for all kernels."""
    pattern = arguments.get("pattern")
    return operator == "psconv" and isinstance(pattern, tuple) and len(_period(pattern)) == 1


def _period(pattern: tuple[Dilation, ...]) -> tuple[Dilation, ...]:
    """Return the shortest part of a pattern that gives the pattern when repeated."""
    t = len(pattern)
    return next(pattern[:p] for p in range(1, t + 1) if t % p == 0 and pattern == pattern[:p] * (t // p))


def _change(operator: str, depthwise: bool) -> _Change | None:
    matching = (c for c in _CHANGES if operator in c.operators and (depthwise or not c.depthwise))
    return next(matching, None)
