"""What tools make of an operator: memory formats, compilers, exporters, copies, files."""

import copy
import io
import pickle
from importlib.util import find_spec

import torch

from nas_recalib.conformance.require import NotRun, mode, require, require_same
from nas_recalib.conformance.subject import Subject, call

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


def onnx_export(subject: Subject) -> None:
    """ONNX export takes it with any number of images, and ONNX Runtime computes the same."""
    missing = [name for name in _ONNX if find_spec(name) is None]
    if missing:
        raise NotRun(f"{' and '.join(missing)} not installed")
    import onnxruntime

    module = subject.build(subject.richest).float()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(
        module, (subject.draw(2).float(),), dynamo=True, dynamic_shapes=dynamic, verbose=False
    )
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal alone: what fails is told by the exception
    runtime = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = subject.draw(3).float()
    (y,) = runtime.run(None, {runtime.get_inputs()[0].name: x.numpy()})
    require_same(torch.from_numpy(y), module(x).detach(), "ONNX Runtime", tolerance=1e-4)


def copies(subject: Subject) -> None:
    """A deep copy and a pickled one compute the same."""
    for form in subject.forms:
        module, x = subject.build(form), subject.draw()
        require_same(copy.deepcopy(module)(x), module(x), "a deep copy")
        require_same(pickle.loads(pickle.dumps(module))(x), module(x), "a pickled copy")


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
