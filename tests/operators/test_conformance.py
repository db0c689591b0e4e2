"""What every operator owes its user, whatever it computes."""

import onnx
import onnxruntime
import onnxscript
import pytest

from nas_recalib.conformance import check_operator
from nas_recalib.operators.catalog import names

VARIANTS = [
    "psconv(pattern=1-3-2)", "psconv(pattern=2)", "psconv(vary=in)", "psconv(vary=out)",
    "scconv(r=3, pooling=max, upsample=bilinear)", "scconv(r=2, identity=no)",
    "msar(scales=1-3, strategy=sliding, hidden=5, share=yes)", "ab(groups=3)",
]  # fmt: skip
NOT_RUN = {
    "vanilla": {"channels"},  # torch's own refusal is a RuntimeError
    "none": {"channels", "groups"},
    "psconv(vary=out)": {"channels_last"},  # its output is gathered from strided pieces
    **{name: {"groups"} for name in names("recalibration") if name != "none"},
}


@pytest.mark.parametrize("choice", [*names("convolution"), *names("recalibration"), *VARIANTS])
def test_conforms(choice):
    not_run = NOT_RUN.get(choice, NOT_RUN.get(choice.split("(")[0], set()))
    report = check_operator(choice, skip=not_run - {"groups"})
    assert set(report.skipped) == not_run


def test_the_packages_that_onnx_export_needs_are_here():
    assert all(package.__version__ for package in (onnx, onnxruntime, onnxscript))
