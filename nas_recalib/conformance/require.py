"""How a check says what is wrong, in one line."""

import torch
from torch import Tensor, nn

from nas_recalib.conformance.subject import Form, Subject


class NotRun(Exception):
    """Why a check says nothing of an operator."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def require_shape(subject: Subject, form: Form, module: nn.Module, x: Tensor) -> None:
    y, expected = module(x), subject.shape_after(form, x)
    told = f" ({form})" if subject.kind == "convolution" else ""
    same = isinstance(y, Tensor) and tuple(y.shape) == expected
    require(same, f"{tuple(x.shape)} became {_shape(y)} instead of {expected}{told}")
    require(bool(y.isfinite().all()), f"{tuple(x.shape)} became NaN or infinity{told}")


def require_same(got: Tensor, expected: Tensor, what: str, tolerance: float | None = None) -> None:
    """As torch.testing.assert_close, with its tolerances for the type of the numbers unless one is given."""
    torch.testing.assert_close(
        got,
        expected,
        rtol=tolerance,
        atol=tolerance,
        msg=lambda details: f"{what}: {' '.join(details.split())}",
    )


def mode(training: bool) -> str:
    return "in training" if training else "in evaluation"


def _shape(y: object) -> str:
    return str(tuple(y.shape)) if isinstance(y, Tensor) else type(y).__name__
