"""Whether what may be chosen fits the network that a proxy trains."""

from nas_recalib.costs.macs import fixed_cost, named_block_cost
from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.space import SearchSpace


def refuse_misfits(space: SearchSpace, fidelity: Fidelity) -> None:
    """Builds every choice once, at the proxy's width and resolution.

    Raises:
        InputError: If one that fits the full-size network does not fit its twin, which is narrower and sees
            smaller images; it is named.
    """
    twin = get_backbone(space.backbone).twin(fidelity.width)
    specs = twin.blocks()
    _, shapes = fixed_cost(twin, fidelity.resolution, space.num_classes, 3)
    try:
        for position in space.positions:
            for block in position.blocks:
                for choice in position.choices:
                    named_block_cost(block, specs[block], choice, shapes[block])
    except ValueError as error:
        told = f"the twin at {fidelity.width:g} of the channels, on images of {fidelity.resolution} pixels"
        raise InputError(f"fidelity: {told}: {error}") from error
