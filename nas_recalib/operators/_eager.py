"""Where backward passes of our own may stand."""

import torch
from torch.autograd import forward_ad


def differentiates_eagerly() -> bool:
    """Whether plain reverse-mode autograd is at work: nothing compiles, traces or transforms functions."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0
