"""What a run by default is spared: most examples of Hypothesis, and most parameters of slow tests."""

from collections.abc import Container, Iterable
from typing import Any

import pytest
from hypothesis import settings

FEW_BACKBONES = ("resnet18", "resnet50", "resnet20", "shufflenet-g3")  # the least of each family


def soaked(values: Iterable[Any], default: Container[Any] = FEW_BACKBONES) -> list[Any]:
    """Return the values as parameters, all but some of which are only tested under `-m soak`.

    Args:
        values: What a test is parametrized by; a tuple is several parameters.
        default: Values that are tested by default.
    """
    return [
        value
        if value in default
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.soak)
        for value in values
    ]


def examples(most: int) -> settings:
    """Return settings with at most this many examples under `-m soak`, and a tenth of them by default.

    Args:
        most: Number of examples of a full run.
    """
    share = settings.get_profile("default").max_examples / settings.get_profile("soak").max_examples
    full = settings.default.max_examples == settings.get_profile("soak").max_examples
    return settings(max_examples=most if full else max(1, round(most * share)))
