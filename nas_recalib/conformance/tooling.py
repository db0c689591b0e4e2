"""Checks on an operator under tools: memory formats, compilers, exporters, copies, state dictionaries.

Every public function is a check; it raises if the operator fails, and NotRun if it cannot be run here.
"""

import copy
import io
import pickle
import warnings
from importlib.util import find_spec

import torch
from torch import nn
from torch.fx import symbolic_trace
from torch.optim.swa_utils import AveragedModel

from nas_recalib.conformance.subject import NotRun, Subject, call, mode, require, require_same

_ONNX = ("onnx", "onnxscript", "onnxruntime")


def channels_last(subject: Subject) -> None:
    """Check that the channels_last memory format gives the same numbers and is kept in the output."""
    for form in subject.forms:
        module, x = subject.build(form), subject.draw()
        expected, last = module(x), x.to(memory_format=torch.channels_last)
        require_same(module(last), expected, "a channels_last input")
        y = module.to(memory_format=torch.channels_last)(last)
        require_same(y, expected, "a channels_last module")
        kept = y.is_contiguous(memory_format=torch.channels_last)
        require(kept, f"a channels_last input leaves with strides {y.stride()}")


def torch_compile(subject: Subject) -> None:
    """Check that torch.compile makes one graph, in training and evaluation, for fixed and symbolic sizes."""
    for training in (False, True):
        torch.compiler.reset()
        module = subject.build(subject.richest).train(training)
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        for side in (subject.size, subject.size + 2):  # the second makes the compiler treat sizes as symbols
            x = subject.draw(2, side, side)
            require_same(call(compiled, x), call(module, x), f"compiled, {mode(training)}")
    torch.compiler.reset()


def torch_export(subject: Subject) -> None:
    """Check that torch.export works with a dynamic batch size."""
    module = subject.build(subject.richest)
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(module, (subject.draw(2),), dynamic_shapes=dynamic).module()
    require_same(exported(subject.draw(3)), module(subject.draw(3)), "the exported program")


def export_sizes(subject: Subject) -> None:
    """Check that torch.export works with a dynamic batch size and dynamic map sizes."""
    module, size = subject.build(subject.richest), subject.size
    dynamic = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    example = subject.draw(2, size + 1, size + 2)
    exported = torch.export.export(module, (example,), dynamic_shapes=dynamic).module()
    sizes = ((size + 2, size + 4), (2 * size, size + 3))  # torch.export specialises on sides of 1
    for height, width in sizes:
        x = subject.draw(3, height, width)
        require_same(exported(x), module(x), f"the exported program on a {height}x{width} map")


def jit_trace(subject: Subject) -> None:
    """Check that torch.jit.trace works for any batch size, with gradients enabled and disabled."""
    module = subject.build(subject.richest)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            traced = torch.jit.trace(module, (subject.draw(2),))
            require_same(traced(subject.draw(3)), module(subject.draw(3)), "the traced program")


def fx_trace(subject: Subject) -> None:
    """Check that torch.fx traces a network with the operator, for any batch size and map size."""
    network = nn.Sequential(subject.build(subject.richest))
    traced = symbolic_trace(network)
    for side in (subject.size, subject.size + 1):
        x = subject.draw(2, side, side)
        require_same(traced(x), network(x), "the traced network")


def onnx_export(subject: Subject) -> None:
    """Check that ONNX export works with a dynamic batch size, and that ONNX Runtime computes the same."""
    _require_onnx()
    module = subject.build(subject.richest).float()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(
        module, (subject.draw(2).float(),), dynamo=True, dynamic_shapes=dynamic, verbose=False
    )
    assert program is not None
    _require_same_in_onnx(program.model_proto.SerializeToString(), module, subject)


def onnx_torchscript(subject: Subject) -> None:
    """Check that the TorchScript-based ONNX exporter works, and that ONNX Runtime computes the same."""
    _require_onnx()
    module, file = subject.build(subject.richest).float(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the whole exporter
        torch.onnx.export(
            module,
            (subject.draw(2).float(),),
            file,  # type: ignore[arg-type]  # this exporter can write to a buffer, too
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "images"}, "y": {0: "images"}},
        )
    _require_same_in_onnx(file.getvalue(), module, subject)


def copies(subject: Subject) -> None:
    """Check that deep copies, pickled and averaged copies and those with SyncBatchNorm compute the same."""
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
    """Check that a new module computes the same after loading the state dict with weights_only."""
    for form in subject.forms:
        module, fresh = subject.build(form).train(), subject.build(form, seed=1)
        call(module, subject.draw(4))
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        x = subject.draw()
        require_same(fresh(x), module.eval()(x), "a fresh module with its state dict")


def _require_onnx() -> None:
    missing = [name for name in _ONNX if find_spec(name) is None]
    if missing:
        raise NotRun(f"{' and '.join(missing)} not installed")


def _require_same_in_onnx(content: bytes, module: nn.Module, subject: Subject) -> None:
    """Compare a module with its serialised ONNX model, run by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # only fatal errors: the exception says what failed
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x = subject.draw(3).float()
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    require_same(torch.from_numpy(y), module(x).detach(), "ONNX Runtime", tolerance=1e-4)
