"""What tools make of an operator: memory formats, compilers, exporters, copies, files."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.optim.swa_utils import AveragedModel

from nas_recalib.conformance.subject import NotRun, Subject, call, mode, require, require_same

_ONNX = ("onnx", "onnxscript", "onnxruntime")


def channels_last(subject: Subject) -> None:
    """The memory format changes no number, and the output keeps it."""
    for form in subject.forms:
        module, x = subject.build(form), subject.draw()
        expected, last = module(x), x.to(memory_format=torch.channels_last)
        require_same(module(last), expected, "a channels_last input")
        y = module.to(memory_format=torch.channels_last)(last)
        require_same(y, expected, "a channels_last module")
        kept = y.is_contiguous(memory_format=torch.channels_last)
        require(kept, f"a channels_last input leaves with strides {y.stride()}")


def torch_compile(subject: Subject) -> None:
    """torch.compile makes one graph of it, in training and evaluation, and another of symbolic sizes."""
    for training in (False, True):
        torch.compiler.reset()
        module = subject.build(subject.richest).train(training)
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        for side in (subject.size, subject.size + 2):  # the second makes the compiler treat sizes as symbols
            x = subject.draw(2, side, side)
            require_same(call(compiled, x), call(module, x), f"compiled, {mode(training)}")
    torch.compiler.reset()


def torch_export(subject: Subject) -> None:
    """torch.export takes it, with any number of images."""
    module = subject.build(subject.richest)
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(module, (subject.draw(2),), dynamic_shapes=dynamic).module()
    require_same(exported(subject.draw(3)), module(subject.draw(3)), "the exported program")


def export_sizes(subject: Subject) -> None:
    """torch.export takes it with any number of images and maps of any size."""
    module, size = subject.build(subject.richest), subject.size
    dynamic = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    example = subject.draw(2, size + 1, size + 2)
    exported = torch.export.export(module, (example,), dynamic_shapes=dynamic).module()
    for height, width in ((size + 2, size + 4), (2 * size, size + 3)):  # sides of 1 are another program
        x = subject.draw(3, height, width)
        require_same(exported(x), module(x), f"the exported program on a {height}x{width} map")


def jit_trace(subject: Subject) -> None:
    """torch.jit.trace records one program for any number of images, with gradients enabled and without."""
    module = subject.build(subject.richest)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            traced = torch.jit.trace(module, (subject.draw(2),))
            require_same(traced(subject.draw(3)), module(subject.draw(3)), "the traced program")


def fx_trace(subject: Subject) -> None:
    """torch.fx traces a network that has it, for any number of images and maps of any size."""
    network = nn.Sequential(subject.build(subject.richest))
    traced = symbolic_trace(network)
    for side in (subject.size, subject.size + 1):
        x = subject.draw(2, side, side)
        require_same(traced(x), network(x), "the traced network")


def onnx_torchscript(subject: Subject) -> None:
    """The exporter that goes by way of TorchScript takes it, and ONNX Runtime computes the same."""
    module, file = subject.build(subject.richest).float(), io.BytesIO()
    runtime_of = _onnx_runtime()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch says so of the whole exporter
        torch.onnx.export(
            module,
            (subject.draw(2).float(),),
            file,  # type: ignore[arg-type]  # which this exporter writes to, too
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "images"}, "y": {0: "images"}},
        )
    _require_same_in_onnx(runtime_of(file.getvalue()), module, subject.draw(3).float())


def onnx_export(subject: Subject) -> None:
    """ONNX export takes it with any number of images, and ONNX Runtime computes the same."""
    runtime_of = _onnx_runtime()
    module = subject.build(subject.richest).float()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(
        module, (subject.draw(2).float(),), dynamo=True, dynamic_shapes=dynamic, verbose=False
    )
    assert program is not None
    _require_same_in_onnx(
        runtime_of(program.model_proto.SerializeToString()), module, subject.draw(3).float()
    )


def _onnx_runtime() -> Callable[[bytes], Any]:
    """Return what makes a session of ONNX Runtime from a model."""
    missing = [name for name in _ONNX if find_spec(name) is None]
    if missing:
        raise NotRun(f"{' and '.join(missing)} not installed")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal alone: the exception says what failed
    return partial(onnxruntime.InferenceSession, sess_options=options, providers=["CPUExecutionProvider"])


def _require_same_in_onnx(runtime: Any, module: nn.Module, x: Tensor) -> None:
    (y,) = runtime.run(None, {runtime.get_inputs()[0].name: x.numpy()})
    require_same(torch.from_numpy(y), module(x).detach(), "ONNX Runtime", tolerance=1e-4)


def copies(subject: Subject) -> None:
    """A deep copy, a pickled one, an averaged one and one with synchronised norms compute the same."""
    for form in subject.forms:
        module, x = subject.build(form), subject.draw()
        expected = module(x)
        require_same(copy.deepcopy(module)(x), expected, "a deep copy")
        require_same(pickle.loads(pickle.dumps(module))(x), expected, "a pickled copy")
        averaged = AveragedModel(module)
        averaged.update_parameters(module)
        require_same(averaged.eval()(x), expected, "an average of equal models")
        synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(module))
        require_same(synchronised(x), expected, "a copy with synchronised norms")


def state_dict(subject: Subject) -> None:
    """The state dict, read with weights_only, is all that a fresh module needs to compute the same."""
    for form in subject.forms:
        module, fresh = subject.build(form).train(), subject.build(form, seed=1)
        call(module, subject.draw(4))
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        x = subject.draw()
        require_same(fresh(x), module.eval()(x), "a fresh module with its state dict")
