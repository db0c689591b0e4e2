"""Times the Triton kernels of PSConv2d on a GPU, at the 3x3 convolutions of ResNet-50.

    python benchmarks/psconv_triton.py --batch 128 --dtype bfloat16 --out psconv.json

Each row has medians in milliseconds of the vanilla convolution, of PSConv2d as grouped convolutions and of
PSConv2d in Triton, forward and forward with backward, all in channels_last; prints the ratios to vanilla.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from triton.testing import do_bench

from nas_recalib.operators import PSConv2d, psconv

SHAPES = [(64, 56, 1), (128, 56, 2), (128, 28, 1), (256, 28, 2), (256, 14, 1), (512, 14, 2), (512, 7, 1)]


def refuse(*_: object) -> bool:
    return False


def step(module: nn.Module, x: Tensor, slope: Tensor) -> None:
    torch.autograd.grad(module(x), (x, module.weight), slope)


def milliseconds(module: nn.Module, x: Tensor, slope: Tensor) -> dict[str, float]:
    with torch.no_grad():
        forward = do_bench(partial(module, x), return_mode="median")
    return {
        "forward": forward,
        "training": do_bench(partial(step, module, x, slope), return_mode="median"),
    }


def measure(channels: int, side: int, stride: int, batch: int, dtype: torch.dtype) -> dict[str, object]:
    options = {"device": "cuda", "dtype": dtype, "memory_format": torch.channels_last}
    x = torch.randn(batch, channels, side, side).to(**options).requires_grad_()
    slope = torch.randn(batch, channels, side // stride, side // stride).to(**options)
    vanilla = nn.Conv2d(channels, channels, 3, stride, 1, bias=False).to(**options)
    poly = PSConv2d(channels, channels, 3, stride).to(**options)
    usable = psconv.usable
    assert usable(x, poly.weight, poly.pattern, poly.groups)
    row = {"vanilla": milliseconds(vanilla, x, slope), "triton": milliseconds(poly, x, slope)}
    psconv.usable = refuse
    row["grouped"] = milliseconds(poly, x, slope)
    psconv.usable = usable
    return {"channels": channels, "side": side, "stride": stride, **row}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="bfloat16")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for shape in SHAPES:
        row = measure(*shape, arguments.batch, getattr(torch, arguments.dtype))
        rows.append(row)
        ratios = [
            f"{way} {row[way][what] / row['vanilla'][what]:.2f}x"
            for what in ("forward", "training")
            for way in ("grouped", "triton")
        ]
        print(f"{shape}: forward {', '.join(ratios[:2])}; training {', '.join(ratios[2:])}", flush=True)
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        **vars(arguments),
        "rows": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
