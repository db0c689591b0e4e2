"""Checks on what an operator computes. Every public function is a check; it raises if the operator fails.

A check raises NotRun if it does not apply to the operator.
"""

import copy
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.conformance.subject import Form, NotRun, Subject, call, mode, require, require_same
from nas_recalib.costs.macs import Cost, count_cost
from nas_recalib.errors import in_one_line

_BFLOAT16_ERROR = 0.03  # relative: bfloat16 has 8 bits of precision, and an operator a few layers


def shape(subject: Subject) -> None:
    """Check that output sides are input sides divided by the stride, with the required output channels."""
    forms = [subject.forms[0]]
    if subject.kind == "convolution":
        forms = [Form(*form) for form in product((subject.channels, 2 * subject.channels), (1, 2))]
    for form in forms:
        _require_shape(subject, form, subject.build(form), subject.draw())


def groups(subject: Subject) -> None:
    """Check that groups work as in nn.Conv2d, or raise ValueError."""
    if subject.kind != "convolution":
        raise NotRun("only convolutions have groups")
    for count in (2, subject.channels):
        form = Form(subject.channels, groups=count)
        if subject.accepts(form):
            _require_shape(subject, form, subject.build(form), subject.draw())


def map_sizes(subject: Subject) -> None:
    """Check that one module accepts maps of every size, including odd ones."""
    size = subject.size
    for form in subject.forms:
        module = subject.build(form)
        for height, width in ((size - 1, size + 1), (size + 1, size), (size, 2 * size)):
            _require_shape(subject, form, module, subject.draw(2, height, width))


def small_maps(subject: Subject) -> None:
    """Check that maps of 1 x 1 and 2 x 2 work; without clamp=True a recalibration may raise ValueError."""
    for form, clamp, side in product(subject.forms, (True, False), (2, 1)):
        module = subject.build(form, clamp=clamp)
        try:
            _require_shape(subject, form, module, subject.draw(2, side, side))
        except ValueError as error:
            may_raise = not clamp and subject.kind == "recalibration"
            require(may_raise, f"a {side}x{side} map is refused: {error}")
            names_operator = subject.part.name.startswith(str(error).split(":")[0])  # msar-multi is an msar
            require(names_operator, f"the ValueError does not name the operator: {error}")


def one_image(subject: Subject) -> None:
    """Check that training on a single image gives finite numbers or a ValueError."""
    for form, side in product(subject.forms, (subject.size, 1)):
        module = subject.build(form, clamp=True).train()
        try:
            y = call(module, subject.draw(1, side, side))
        except ValueError:
            continue
        require(bool(y.isfinite().all()), f"training on one {side}x{side} image gives NaN or infinity")


def gradcheck(subject: Subject) -> None:
    """Check gradients with respect to input and parameters by finite differences."""
    for form, training in product(subject.forms, (False, True)):
        module = subject.build(form).train(training)
        x = subject.draw(3)
        _require_gradient(partial(call, module), x, f"{mode(training)}: gradient of its input")
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                function = partial(_call_with, module, name, x)
                _require_gradient(function, parameter, f"{mode(training)}: gradient of {name}")


def autocast(subject: Subject) -> None:
    """Check that bfloat16 autocast gives nearly the output of float32, and finite gradients everywhere."""
    for form, training in product(subject.forms, (False, True)):
        module = subject.build(form).float().train(training)
        x = subject.draw(4).float().requires_grad_()
        exact = call(module, x).detach()
        with torch.autocast("cpu", torch.bfloat16):
            y = call(module, x)
        error = ((y.detach() - exact).norm() / exact.norm()).item()
        found = f"{error:.1%} from float32 ({_BFLOAT16_ERROR:.0%} is allowed)"
        require(error < _BFLOAT16_ERROR, f"{mode(training)}: {found}")
        y.float().sum().backward()
        for name, tensor in (("its input", x), *module.named_parameters()):
            if tensor.requires_grad:
                require(tensor.grad is not None, f"{mode(training)}: no gradient reaches {name}")
                finite = tensor.grad is not None and bool(tensor.grad.isfinite().all())
                require(finite, f"{mode(training)}: gradient of {name} is NaN or infinite")


def input_kept(subject: Subject) -> None:
    """Check that the input is not modified."""
    for form, training in product(subject.forms, (False, True)):
        x = subject.draw()
        call(subject.build(form).train(training), x)
        require(torch.equal(x, subject.draw()), f"{mode(training)}: its input was changed")


def channels(subject: Subject) -> None:
    """Check that a wrong number of channels and an image without batch dimension raise ValueError."""
    x = subject.draw()
    other = subject.channels + 1
    for form in subject.forms:
        module = subject.build(form)
        for case, wrong in (
            (f"{other} channels", torch.cat((x, x[:, :1]), dim=1)),
            ("an image without a batch", x[0]),
        ):
            try:
                module(wrong)
            except ValueError as error:
                names_shape = str(wrong.shape[-3]) in str(error)
                require(names_shape, f"{case}: the ValueError does not name the channels: {error}")
            except Exception as error:
                raise AssertionError(f"{case}: {type(error).__name__} instead of ValueError") from error
            else:
                raise AssertionError(f"{case}: no ValueError is raised")


def costs(subject: Subject) -> None:
    """Check that costs counted on meta tensors, as for a budget, equal those of a real run."""
    for form, side in product(subject.forms, (subject.size, subject.size + 1)):
        shape = (1, subject.channels, side, side)
        with torch.device("meta"):
            counted = count_cost(subject.build(form).float(), shape)
        module = subject.build(form).float()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(torch.zeros(shape))
        real = Cost(counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters()))
        require(counted == real, f"counted {counted} on meta tensors, a real run has {real}")


def repeatable(subject: Subject) -> None:
    """Check that evaluation draws no random numbers, changes no state and is deterministic."""
    for form in subject.forms:
        module, x = subject.build(form), subject.draw()
        before = copy.deepcopy(module.state_dict())
        random = torch.get_rng_state()
        first = module(x)
        require(torch.equal(random, torch.get_rng_state()), "evaluation draws from the global generator")
        for name, tensor in module.state_dict().items():
            require(torch.equal(tensor, before[name]), f"evaluation changes {name}")
        require(torch.equal(module(x), first), "a second evaluation gives other numbers")


def images_apart(subject: Subject) -> None:
    """Check that in evaluation the output of an image does not depend on the others in its batch."""
    for form in subject.forms:
        module, x = subject.build(form), subject.draw(3)
        alone = torch.cat([module(image) for image in x.split(1)])
        require_same(alone, module(x), "images one by one")


def _require_shape(subject: Subject, form: Form, module: nn.Module, x: Tensor) -> None:
    y, expected = module(x), subject.shape_after(form, x)
    suffix = f" ({form})" if subject.kind == "convolution" else ""
    found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
    require(found == expected, f"{tuple(x.shape)} became {found} instead of {expected}{suffix}")
    require(bool(y.isfinite().all()), f"{tuple(x.shape)} became NaN or infinity{suffix}")


def _require_gradient(function: Callable[[Tensor], Tensor], at: Tensor, name: str) -> None:
    """Check a directional derivative of a random weighted sum of the outputs by finite differences."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(at.shape, generator=generator, dtype=at.dtype)

    def along(step: Tensor) -> Tensor:
        y = function(at.detach() + step * direction)
        weights = torch.randn(y.shape, generator=generator.manual_seed(1), dtype=y.dtype)
        return (y * weights).sum()

    try:
        torch.autograd.gradcheck(along, torch.zeros((), dtype=at.dtype, requires_grad=True))
    except RuntimeError as error:
        raise AssertionError(f"{name}: {in_one_line(error)}") from error


def _call_with(module: nn.Module, name: str, x: Tensor, value: Tensor) -> Tensor:
    return call(lambda images: functional_call(module, {name: value}, (images,)), x)
