"""Search for the operator of each block of a network under a hard budget.

Names are imported on first use, so that the command line starts before torch is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas_recalib.architecture import Architecture, build, cost
    from nas_recalib.conformance import check_operator
    from nas_recalib.costs import Budget, Cost
    from nas_recalib.operators import BlockChoice, register
    from nas_recalib.space import SearchSpace

_HOMES = {
    "Architecture": "nas_recalib.architecture",
    "BlockChoice": "nas_recalib.operators",
    "Budget": "nas_recalib.costs",
    "Cost": "nas_recalib.costs",
    "SearchSpace": "nas_recalib.space",
    "build": "nas_recalib.architecture",
    "check_operator": "nas_recalib.conformance",
    "cost": "nas_recalib.architecture",
    "register": "nas_recalib.operators",
}

__version__ = "0.2.0"
__all__ = [
    "Architecture",
    "BlockChoice",
    "Budget",
    "Cost",
    "SearchSpace",
    "build",
    "check_operator",
    "cost",
    "register",
]


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
