"""Conformance of every operator to the requirements on all operators."""

import onnx
import onnxruntime
import onnxscript
import pytest
from examples import soaked

from nas_recalib.conformance import check_operator
from nas_recalib.operators.catalog import names

VARIANTS = [
    "psconv(pattern=1-3-2)", "psconv(pattern=2)", "psconv(vary=in)", "psconv(vary=out)",
    "scconv(r=3, pooling=max, upsample=bilinear)", "scconv(r=2, identity=no)",
    "msar(scales=1-3, strategy=sliding, hidden=5, share=yes)", "ab(groups=3)",
    "msar(scales=2-3)", "msar(strategy=sliding-l1)", "msar(norm=hidden)", "scconv(ceil=yes)",
    "psconv(pattern=1-2-1-1-4)", "psconv-learned(clip=yes)",
    "ge(excitation=ab, extent=4)", "ge(excitation=none, extent=2)",
    "ab-design(design=I)", "ab-design(design=O)", "ab-design(design=dw9-bn)",
]  # fmt: skip
CONVOLUTIONS = names("convolution")
OF_ONE_SIZE = ["ge(size=8)", "ab-design(design=H, size=8)"]  # refuse maps of any other
RECALIBRATIONS = [name for name in names("recalibration") if name != "ab-design"]  # which has no default
TRACING = {
    "torch_compile",
    "torch_export",
    "export_sizes",
    "onnx_export",
    "onnx_torchscript",
}  # most of the time
NOT_RUN = {
    "vanilla": {"channels"},  # torch's own refusal is a RuntimeError
    "none": {"channels", "groups"},
    "psconv-learned": {"gradcheck"},  # gradients pass straight through a step
    **{
        name: {"groups", "map_sizes", "costs", "torch_compile", "export_sizes", "fx_trace"}
        for name in OF_ONE_SIZE
    },
    **{name: {"groups"} for name in names("recalibration") if name != "none"},
}


def not_run(choice):
    return NOT_RUN.get(choice, NOT_RUN.get(choice.split("(")[0], set()))


@pytest.mark.parametrize(
    "choice",
    soaked([*CONVOLUTIONS, *RECALIBRATIONS, *VARIANTS, *OF_ONE_SIZE], ["psconv", "ab", "se", "none"]),
)
def test_conforms(choice):
    report = check_operator(choice, skip=not_run(choice) - {"groups"})
    assert set(report.skipped) == not_run(choice)


@pytest.mark.parametrize(
    "choice",
    soaked(
        [*CONVOLUTIONS, *RECALIBRATIONS, *VARIANTS, *OF_ONE_SIZE],
        [
            *CONVOLUTIONS, *RECALIBRATIONS, "psconv(pattern=1-3-2)", "scconv(ceil=yes)", "ab(groups=3)",
            "msar(scales=2-3)", "psconv-learned(clip=yes)", "ab-design(design=I)", "ge(size=8)",
        ],
    ),
)  # fmt: skip
def test_operators_conform_in_all_that_takes_no_tracing(choice):
    skipped = not_run(choice) | TRACING
    assert set(check_operator(choice, skip=skipped - {"groups"}).skipped) == skipped


def test_the_packages_that_onnx_export_needs_are_here():
    assert all(package.__version__ for package in (onnx, onnxruntime, onnxscript))
