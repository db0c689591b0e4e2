"""Peak memory against maps counted by hand, whole networks followed at once, and measured runs."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from examples import soaked
from measured_memory import measured_memory
from torch import nn

from nas_recalib.architecture import Architecture, build
from nas_recalib.costs import block_memory
from nas_recalib.costs.memory import fake_run
from nas_recalib.networks import get_backbone
from nas_recalib.operators import BlockChoice
from nas_recalib.space import SearchSpace

MIXED = ("scconv+ab", "psconv+msar(scales=1-2)", "vanilla", "psconv(pattern=1-2)+se")


def mixed(name, input_size=None):
    blocks = {block: MIXED[i % len(MIXED)] for i, block in enumerate(get_backbone(name).blocks())}
    return Architecture.of(name, blocks, input_size=input_size)


class Chain(nn.Module):
    def __init__(self, *steps):
        super().__init__()
        self.steps = steps
        self.weight = nn.Parameter(torch.empty(1000, 1000))

    def forward(self, x):
        weight = self.weight.view(-1)[:1]
        for step in self.steps:
            x = step(x)
        return x * weight


@dataclass(frozen=True)
class Steps:
    steps: tuple

    def build(self, choice):
        return Chain(*self.steps)


@pytest.mark.parametrize(
    ("steps", "maps"),
    [
        ((), 2),  # input and product; neither the weight nor a view of it
        ((torch.relu_,), 2),
        ((torch.relu,), 3),  # the caller still holds the input
        ((torch.relu,) * 5, 3),
        ((lambda x: x[:, :4],), 1.5),  # half a map is multiplied
        ((lambda x: torch.cat((x, x), 1),), 5),
        ((lambda x: torch.cat((x, x), 1), lambda x: x[:, :8]), 4),  # a view keeps the whole
        ((lambda x: x + torch.relu(x),), 3),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_counts_what_is_alive_at_once(steps, maps, device):
    shape = (2, 8, 10, 10)
    one = 2 * 8 * 10 * 10 * 4
    assert block_memory(Steps(steps), BlockChoice(), shape, device=device) == maps * one
    assert block_memory(Steps(steps), BlockChoice(), shape, torch.bfloat16, device) == maps * one / 2


def test_a_basic_block_by_hand():
    """The input, which is the shortcut, the second convolution's input and result, and that of the norm."""
    spec = get_backbone("resnet20").blocks()["layer1.1"]
    assert block_memory(spec, BlockChoice(), (4, 16, 32, 32), device="cuda") == 4 * 4 * 16 * 32 * 32 * 4


@pytest.mark.parametrize(
    ("name", "device"),
    soaked(
        [("resnet18", "cpu"), ("resnet20", "cuda"), ("resnet164", "cpu"), ("shufflenet-g3", "cuda")],
        [("resnet18", "cpu"), ("resnet20", "cuda")],
    ),
)
def test_blocks_joined_equal_a_network_followed_at_once(name, device):
    architecture = mixed(name)
    size = architecture.input_size
    with torch.device("meta"):
        network = architecture.shape.build(architecture.blocks, architecture.num_classes, 3)
    with fake_run(network, torch.float32, device) as (tracker, run):
        run((2, 3, size, size))
    assert architecture.memory(2, device=device) == tracker.peak


SMALL = [Architecture.of("resnet20", choice) for choice in ("scconv", "psconv", "msar", "ab")]
NEW_FORMS = (
    "msar(reduction=3)",
    "msar(norm=hidden)",
    "msar(strategy=sliding-l1)",
    "scconv(ceil=yes)",
    "psconv-learned(clip=yes)",
    "cbam",
    "ab-design(design=B)",
)


@pytest.mark.parametrize(
    ("architecture", "batch"),
    soaked(
        [
            *((architecture, batch) for architecture in SMALL for batch in (1, 8)),
            *((Architecture.of("resnet20", choice), 2) for choice in NEW_FORMS),
            (Architecture.of("resnet50", "vanilla"), 2),
            (Architecture.of("resnext29-8x64d", "vanilla"), 1),
            *((mixed(name), batch) for name in ("resnet20", "shufflenet-g3") for batch in (1, 8)),
            (Architecture.of("densenet100", "scconv"), 8),
            (mixed("resnet18", 96), 1),
        ],
        [*((architecture, 8) for architecture in SMALL), (mixed("resnet20"), 1), (mixed("resnet18", 96), 1)],
    ),
    ids=lambda value: value.backbone if isinstance(value, Architecture) else str(value),
)
def test_estimates_what_a_run_takes(architecture, batch):
    images = torch.zeros(batch, 3, architecture.input_size, architecture.input_size)
    measured = measured_memory(build(architecture).eval(), images)
    assert architecture.memory(batch) == pytest.approx(measured, rel=0.15)


def test_a_run_by_hand():
    """The images, the map before and the map after; the first map is freed in time."""
    network = nn.Sequential(nn.Sigmoid(), nn.Tanh(), nn.Sigmoid()).eval()
    assert measured_memory(network, torch.zeros(4, 3, 32, 32)) == 3 * 4 * 3 * 32 * 32 * 4


@pytest.mark.parametrize("granularity", ["block", "stage"])
def test_the_column_of_a_space_holds_every_architecture(tmp_path, granularity):
    path = tmp_path / "space.yaml"
    path.write_text(
        f"{{name: s, backbone: resnet20, granularity: {granularity}, convolution: [vanilla, scconv, psconv],"
        " recalibration: [none, ab]}"
    )
    space = SearchSpace.load(path)
    constant, entries = space.peaks(4, torch.float32, "cpu")
    random = np.random.default_rng(0)
    for _ in range(5):
        indices = tuple(int(random.integers(len(position.choices))) for position in space.positions)
        joined = max(constant, *(entry[index] for entry, index in zip(entries, indices, strict=True)))
        assert joined == space.from_indices(indices).memory(4)
    assert len({int(value) for entry in entries for value in entry}) > len(entries), "choices differ"


def test_a_larger_batch_takes_as_many_times_the_memory_on_a_gpu():
    architecture = Architecture.of("resnet20", "scconv+ab")
    two, eight = (architecture.memory(batch, device="cuda") for batch in (2, 8))
    assert eight == 4 * two


def test_draws_no_random_numbers():
    before = torch.get_rng_state()
    Architecture.of("resnet32", "psconv+ab").memory()
    assert torch.equal(before, torch.get_rng_state())


def test_names_the_block_that_an_operator_does_not_fit():
    with pytest.raises(ValueError, match=r"^layer1\.0: ab: groups = 3 is not a divisor"):
        Architecture.of("resnet50", "ab(groups=3)").memory()
