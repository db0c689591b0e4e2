"""What an operator computes: each check returns if all is well, raises if not, NotRun where it cannot say."""

import copy
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.conformance.subject import (
    Form,
    NotRun,
    Subject,
    call,
    mode,
    require,
    require_same,
    require_shape,
)
from nas_recalib.costs.macs import Cost, count_cost
from nas_recalib.errors import in_one_line

_NEAR = 0.03  # of the norm: bfloat16 has 8 bits, and an operator a few layers


def shape(subject: Subject) -> None:
    """Keeps a map, or divides its sides by the stride, for as many output channels as are asked for."""
    forms = [subject.forms[0]]
    if subject.kind == "convolution":
        forms = [Form(*form) for form in product((subject.channels, 2 * subject.channels), (1, 2))]
    for form in forms:
        require_shape(subject, form, subject.build(form), subject.draw())


def groups(subject: Subject) -> None:
    """Takes groups as nn.Conv2d does, or refuses them by a ValueError."""
    if subject.kind != "convolution":
        raise NotRun("only convolutions have groups")
    for number in (2, subject.channels):
        form = Form(subject.channels, 1, number)
        if subject.accepts(form):
            require_shape(subject, form, subject.build(form), subject.draw())


def map_sizes(subject: Subject) -> None:
    """One module takes maps of every size, odd ones too."""
    size = subject.size
    for form in subject.forms:
        module = subject.build(form)
        for height, width in ((size - 1, size + 1), (size + 1, size), (size, 2 * size)):
            require_shape(subject, form, module, subject.draw(2, height, width))


def small_maps(subject: Subject) -> None:
    """Works on maps of 1 x 1 and 2 x 2 where told to clamp, as a twin does; else it may refuse, by name."""
    for form, clamp, side in product(subject.forms, (True, False), (2, 1)):
        module = subject.build(form, clamp=clamp)
        try:
            require_shape(subject, form, module, subject.draw(2, side, side))
        except ValueError as error:
            refusable = not clamp and subject.kind == "recalibration"
            require(refusable, f"a {side}x{side} map is refused: {error}")
            named = subject.part.name.startswith(str(error).split(":")[0])  # msar-multi is an msar
            require(named, f"a refusal does not name the operator: {error}")


def one_image(subject: Subject) -> None:
    """Training on a single image gives finite numbers or a ValueError."""
    for form, side in product(subject.forms, (subject.size, 1)):
        module = subject.build(form, clamp=True).train()
        try:
            y = call(module, subject.draw(1, side, side))
        except ValueError:
            continue
        require(bool(y.isfinite().all()), f"training on one {side}x{side} image gives NaN or infinity")


def gradcheck(subject: Subject) -> None:
    """Gradients of input and parameters are those of finite differences."""
    for form, training in product(subject.forms, (False, True)):
        module = subject.build(form).train(training)
        x = subject.draw(3)
        _require_gradient(partial(call, module), x, f"{mode(training)}: gradient of its input")
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                function = partial(_call_with, module, name, x)
                _require_gradient(function, parameter, f"{mode(training)}: gradient of {name}")


def autocast(subject: Subject) -> None:
    """Under bfloat16 autocast the output is near that of float32, and every gradient is there and finite."""
    for form, training in product(subject.forms, (False, True)):
        module = subject.build(form).float().train(training)
        x = subject.draw(4).float().requires_grad_()
        exact = call(module, x).detach()
        with torch.autocast("cpu", torch.bfloat16):
            y = call(module, x)
        error = ((y.detach() - exact).norm() / exact.norm()).item()
        require(error < _NEAR, f"{mode(training)}: {error:.1%} from float32 ({_NEAR:.0%} is allowed)")
        y.float().sum().backward()
        for name, tensor in (("its input", x), *module.named_parameters()):
            if tensor.requires_grad:
                require(tensor.grad is not None, f"{mode(training)}: no gradient reaches {name}")
                finite = tensor.grad is not None and bool(tensor.grad.isfinite().all())
                require(finite, f"{mode(training)}: gradient of {name} is NaN or infinite")


def input_kept(subject: Subject) -> None:
    """Leaves its input as it was."""
    for form, training in product(subject.forms, (False, True)):
        x = subject.draw()
        call(subject.build(form).train(training), x)
        require(torch.equal(x, subject.draw()), f"{mode(training)}: its input was changed")


def channels(subject: Subject) -> None:
    """Refuses images of other channels, naming their number, and an image that stands in no batch."""
    x = subject.draw()
    other = subject.channels + 1
    for form in subject.forms:
        module = subject.build(form)
        for told, wrong in (
            (f"{other} channels", torch.cat((x, x[:, :1]), dim=1)),
            ("an image without a batch", x[0]),
        ):
            try:
                module(wrong)
            except ValueError as error:
                named = str(wrong.shape[-3]) in str(error)
                require(named, f"{told}: the ValueError does not name what came: {error}")
            except Exception as error:
                raise AssertionError(f"{told}: {type(error).__name__} instead of ValueError") from error
            else:
                raise AssertionError(f"{told}: nothing is refused")


def costs(subject: Subject) -> None:
    """Costs counted on meta tensors, as a budget counts them, are those of a real run."""
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
    """Evaluation draws nothing, remembers nothing and gives the same numbers again."""
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
    """In evaluation no image changes what another gives."""
    for form in subject.forms:
        module, x = subject.build(form), subject.draw(3)
        alone = torch.cat([module(image) for image in x.split(1)])
        require_same(alone, module(x), "images one by one")


def _require_gradient(function: Callable[[Tensor], Tensor], at: Tensor, what: str) -> None:
    """Along a random direction, for random weights of the outputs: two numbers, however large the tensors."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(at.shape, generator=generator, dtype=at.dtype)

    def along(step: Tensor) -> Tensor:
        y = function(at.detach() + step * direction)
        weights = torch.randn(y.shape, generator=generator.manual_seed(1), dtype=y.dtype)
        return (y * weights).sum()

    try:
        torch.autograd.gradcheck(along, torch.zeros((), dtype=at.dtype, requires_grad=True))
    except RuntimeError as error:
        raise AssertionError(f"{what}: {in_one_line(error)}") from error


def _call_with(module: nn.Module, name: str, x: Tensor, value: Tensor) -> Tensor:
    return call(lambda images: functional_call(module, {name: value}, (images,)), x)
