"""Measured peak memory of activations, to compare the estimate with.

The process grows by more: oneDNN's scratch memory does not come from torch's allocator, and the C library
keeps freed memory. ResNet-50's first forward pass on one thread grew its resident memory by 129 MiB for 8
images, of which torch's allocator had given out 90, and by 25 for 1 image (11); with PSConv and 8 images by
181 (90), ResNeXt-29 by 100 (85), DenseNet-100 by 27 (17).
"""

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

_MEMORY_EVENT = "[memory]"


def measured_memory(network: nn.Module, images: Tensor) -> int:
    """Return the peak bytes of activations in one forward pass, the images included.

    On a CPU this is the sum over all allocations and releases that torch's allocator reports; on a GPU it is
    torch.cuda.max_memory_allocated, which includes cuDNN's workspaces.

    Args:
        network: Network in evaluation mode, on the device of the images.
        images: Images of shape (N, C, H, W).
    """
    given = images.untyped_storage().nbytes()
    with torch.inference_mode():
        network(images)  # libraries set themselves up
        if images.is_cuda:
            torch.cuda.reset_peak_memory_stats(images.device)
            before = torch.cuda.memory_allocated(images.device)
            network(images)
            return torch.cuda.max_memory_allocated(images.device) - before + given
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            network(images)
    events = watched.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == _MEMORY_EVENT)
    live = peak = 0
    for _, change in changes:
        live += change
        peak = max(peak, live)
    return peak + given
