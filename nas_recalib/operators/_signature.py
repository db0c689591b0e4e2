"""Whether a block can build what is being registered."""

import inspect
import re
from collections.abc import Callable

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_ARGUMENT = re.compile(r"[a-z][a-z0-9_]*")

# What a block gives by position.
_LEADING = {
    "convolution": ("in_channels", "out_channels", "kernel_size", "stride", "groups"),
    "recalibration": ("channels",),
}


def require_buildable(name: str, construct: Callable[..., object], kind: str) -> None:
    """Raises ValueError naming what keeps a block from building a constructor, or a choice from naming it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"an operator cannot be named {name!r}; use lower-case letters, digits and '-'")
    leading = _LEADING[kind]
    try:
        parameters = list(inspect.signature(construct).parameters.values())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: {construct!r} is not a class or function that tells its arguments"
        ) from error
    by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if tuple(by_position[: len(leading)]) != leading:
        raise ValueError(
            f"{name}: a block builds a {kind} from ({', '.join(leading)}), "
            f"but its constructor takes ({', '.join(map(str, parameters))})"
        )
    for parameter in parameters[len(leading) :]:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise ValueError(f"{name}: a block does not give what {parameter} takes")
        if parameter.kind is parameter.POSITIONAL_ONLY or not _ARGUMENT.fullmatch(parameter.name):
            raise ValueError(f"{name}: argument {parameter.name!r} cannot be written like r=2 in a choice")
