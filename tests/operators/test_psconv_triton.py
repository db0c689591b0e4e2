"""The Triton kernels against equation 3 in float64: on a GPU if there is one, else in Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, so `test_in_the_interpreter` runs this file once more in a
process of its own; without GPU and interpreter its other tests are skipped.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.operators import PSConv2d, psconv_triton
from nas_recalib.operators.psconv_triton import INTERPRETED, usable

triton = pytest.importorskip("triton")
DEVICE = "cpu" if INTERPRETED else "cuda"
HALF = torch.float16 if INTERPRETED else torch.bfloat16  # the interpreter multiplies no bfloat16
runs = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()), reason="needs a GPU or the interpreter"
)
CASES = {
    "blocks of 16": (64, 64, 3, 1, 1, (1, 2, 1, 4), "both"),
    "grouped, strided": (64, 64, 3, 2, 2, (1, 2), "both"),
    "uneven blocks": (48, 72, 3, 2, 1, (1, 3, 2), "out"),
    "wide kernel": (32, 32, 5, 3, 1, (3, 1), "in"),
    "more outputs": (32, 64, 3, 1, 1, (1, 2), "both"),
    "pointwise, strided": (32, 64, 1, 2, 1, (1, 2), "both"),
}


@pytest.fixture(autouse=True)
def enabled(monkeypatch):
    monkeypatch.setattr(psconv_triton, "ENABLED", True)


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="they run here")
@pytest.mark.parametrize(
    "named", ["pointwise or half or leaves or no_images", pytest.param("", marks=pytest.mark.soak)]
)
def test_in_the_interpreter(named):
    command = [sys.executable, "-m", "pytest", "-n", "0", "-k", named, __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    folder = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def explicit(x, module):
    """Equation 3 as a sum over dilations of dense convolutions with the kernels of that dilation alone."""
    lattice = module.dilation_matrix()
    groups, (outputs, inputs, k, _) = module.groups, module.weight.shape
    dense = x.new_zeros(outputs, inputs * groups, k, k)
    for group in range(groups):
        rows, columns = (slice(group * n, (group + 1) * n) for n in (outputs // groups, inputs))
        dense[rows, columns] = module.weight[rows]
    return sum(
        F.conv2d(x, dense * (lattice == d)[..., None, None].to(x), None, module.stride, d * (k // 2), d)
        for d in set(module.pattern)
    )


def results(call, x, module, slope):
    """The output of call, and its gradients to the input and the weight for a gradient of `slope`."""
    x = x.detach().requires_grad_()
    y = call(x)
    return y, *torch.autograd.grad(y, (x, module.weight), slope.to(y))


def distances(module, x, slope):
    """Relative distances of output and gradients from those of equation 3 in float64 on the same values."""
    exact = copy.deepcopy(module).double()
    expected = results(lambda x: explicit(x, exact), x.double(), exact, slope)
    actual = results(module, x, module, slope)
    return [((a - b).norm() / b.norm()).item() for a, b in zip(actual, expected, strict=True)]


@pytest.fixture
def case(make, normal):
    def draw(name, height=7, width=6, dtype=torch.float32):
        inputs, outputs, kernel, stride, groups, pattern, vary = CASES[name]
        arguments = (inputs, outputs, kernel, stride, groups)
        module = make(PSConv2d, *arguments, pattern=pattern, vary=vary, dtype=dtype).to(DEVICE)
        x = normal(2, inputs, height, width, dtype=torch.float32).to(DEVICE, dtype)
        slope = normal(2, outputs, -(-height // stride), -(-width // stride)).to(DEVICE)
        assert usable(x, module.weight, pattern, groups)
        return module, x, slope

    return draw


@runs
@pytest.mark.parametrize("name", CASES)
def test_is_equation_3(case, name):
    module, x, slope = case(name, *((9, 8) if name == "more outputs" else (7, 6)))
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert max(distances(module, x, slope)) < 1e-6


@runs
@pytest.mark.skipif(INTERPRETED, reason="the interpreter computes in float32")
def test_tf32_where_cudnn_may(case):
    module, x, slope = case("blocks of 16")
    with torch.backends.cudnn.flags(allow_tf32=True):
        assert 1e-6 < max(distances(module, x, slope)) < 1e-3


@runs
@pytest.mark.parametrize("dtype", sorted({torch.float16, HALF}, key=str), ids=str)
def test_half_precision_rounds_the_results_alone(case, dtype):
    module, x, slope = case("more outputs", 3, 3, dtype)
    assert max(distances(module, x, slope.to(dtype))) < torch.finfo(dtype).eps / 2


@runs
def test_autocast_computes_in_its_dtype(case):
    module, x, slope = case("more outputs", 3, 3)
    with torch.autocast(DEVICE, HALF):
        y, *gradients = results(module, x, module, slope)
    assert y.dtype == HALF
    assert {g.dtype for g in gradients} == {torch.float32}
    assert torch.equal(y, module.to(HALF)(x.to(HALF)))


@runs
def test_any_layout_in_channels_last_out(case):
    module, x, slope = case("more outputs", 3, 3)
    plain = results(module, x, module, slope)
    last = {"memory_format": torch.channels_last}
    module = module.to(**last)
    laid = results(module, x.contiguous(**last), module, slope.contiguous(**last))
    assert all(torch.equal(a, b) for a, b in zip(plain, laid, strict=True))
    assert plain[0].is_contiguous(**last)
    assert laid[0].is_contiguous(**last)


@runs
def test_keeps_the_contract_of_an_operator(case):
    """Schema, shapes and strides of the stand-in, autograd, and tracing with sizes as symbols."""
    module, x, _ = case("pointwise, strided", 3, 3)
    x = x.detach().requires_grad_()
    arguments = (x, module.weight, module.pattern, module.vary, module.stride, module.groups)
    torch.library.opcheck(torch.ops.nas_recalib.poly_scale.default, arguments)


@runs
def test_compiles_as_one_graph(case):
    torch.compiler.reset()
    module, *_ = case("pointwise, strided")
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for height in (7, 5):  # the second size makes the compiler treat sizes as symbols
        _, x, slope = case("pointwise, strided", height)
        with torch.autocast(DEVICE, HALF):
            pairs = zip(results(compiled, x, module, slope), results(module, x, module, slope), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@runs
def test_exports(case):
    module, x, _ = case("more outputs", 3, 3)
    exported = torch.export.export(module, (x,))
    assert [node.target for node in exported.graph.nodes if node.op == "call_function"] == [
        torch.ops.nas_recalib.poly_scale.default
    ]
    assert torch.equal(exported.module()(x), module(x))


@runs
def test_counts_as_a_vanilla_convolution_forward_and_backward(case):
    module, x, slope = case("grouped, strided", 3, 3)
    vanilla = nn.Conv2d(64, 64, 3, 2, 1, groups=2, bias=False, device="meta")
    with FlopCounterMode(display=False) as forward:
        vanilla(x.to("meta"))
    with FlopCounterMode(display=False) as counter:
        module(x.requires_grad_()).backward(slope.float())
    assert counter.get_total_flops() == 3 * forward.get_total_flops()


@runs
def test_no_images_and_no_gradient(case):
    module, x, slope = case("more outputs", 3, 3)
    y, to_x, to_weight = results(module, x[:0], module, slope[:0])
    assert y.shape == (0, 64, 3, 3)
    assert to_x.shape == (0, 32, 3, 3)
    assert not to_weight.any()
    with torch.no_grad():
        assert not module(x).requires_grad


def test_leaves_what_it_cannot_do_to_grouped_convolutions(normal):
    x, weight = normal(1, 32, 2, 2, dtype=torch.float32), normal(32, 32, 3, 3, dtype=torch.float32)
    assert usable(x, weight, (1, 2), 1) == INTERPRETED
    assert not usable(x.double(), weight.double(), (1, 2), 1)
    assert not usable(x.half(), weight, (1, 2), 1)
    assert not usable(x, weight.to("meta"), (1, 2), 1)
    assert not usable(x.to("meta"), weight.to("meta"), (1, 2), 1), "costs are counted on the plain form"
    assert not usable(x, weight[:, :16], (1, 2), 2), "blocks of 8"
    assert not usable(x, weight, (1, 2, 1, 4), 1), "blocks of 8"


@pytest.mark.skipif(INTERPRETED, reason="compiles nothing")
@pytest.mark.parametrize(
    ("kernel", "dtype"), [("convolve", "bf16"), ("convolve", "fp32"), ("correlate", "fp16")]
)
def test_compiles_to_tensor_cores_and_wide_copies(kernel, dtype, tmp_path, monkeypatch):
    """For a Hopper GPU that need not be here: blocks of 16 channels, 1-2-1-4."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from nas_recalib.operators import psconv_kernels

    function = getattr(psconv_kernels, kernel).fn
    constants = {"C_SOURCE": 16, "C_TARGET": 16, "PADDED": 16, "GROUPS": 1, "KERNEL": 3, "STRIDE": 1}
    constants |= {"TRANSPOSED": False, "PATTERN": (1, 2, 1, 4), "SOURCE_STEP": 1, "TARGET_STEP": -1}
    constants |= {"PRECISION": "tf32", "TILES": 4, "STEPS": 9, "BLOCK_N": 16, "BLOCK_K": 64, "BLOCK_M": 64}
    tensors = {"source": dtype, "weight": dtype, "gradient": dtype}
    tensors["result"] = dtype if kernel == "convolve" else "fp32"
    signature = {
        name: "constexpr" if name in constants else f"*{tensors[name]}" if name in tensors else "i32"
        for name in function.arg_names
    }
    aligned = {
        (function.arg_names.index(name),): [["tt.divisibility", 16]] for name in tensors if name in signature
    }
    source = triton.compiler.ASTSource(
        function, signature, {k: v for k, v in constants.items() if k in signature}, aligned
    )
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    compiled = triton.compile(source, target, {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": True})
    copies = [line for line in compiled.asm["ptx"].splitlines() if "cp.async.c" in line and "shared" in line]
    assert "wgmma.mma_async" in compiled.asm["ptx"]
    assert copies
    assert all(" 0x10" in line for line in copies), copies[0]
