"""Search spaces: positions, choices, sampling, encoding, and errors in their files."""

import math

import numpy as np
import pytest
import yaml
from examples import examples, soaked
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.networks import backbone_names, get_backbone
from nas_recalib.operators import BlockChoice
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import space_names

MIXED = Architecture.of("resnet20", "ab").blocks
CONTENT = {
    "name": "small",
    "backbone": "resnet20",
    "convolution": ["vanilla", "psconv", "scconv(r=2)"],
    "recalibration": ["none", "ab"],
}


@pytest.fixture
def write(tmp_path):
    """Write the file of a small space, with some keys replaced, or left out where the value is None."""

    def to_file(**changes):
        content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return to_file


def test_every_backbone_has_a_space():
    shipped = [name for name in space_names() if not name.startswith("ablation-")]
    assert shipped == sorted(backbone_names())


@pytest.mark.parametrize(
    "name", soaked([name for name in space_names() if name.startswith("ablation-")], ["ablation-booster"])
)
def test_an_ablation_is_a_space_of_the_papers_network(name):
    space = SearchSpace.load(name)
    assert space.name == name
    assert len(space.positions[0].choices) >= 10
    least, greatest = (space.sample(seed=seed) for seed in (0, 1))
    assert least != greatest


@pytest.mark.parametrize("name", soaked(backbone_names()))
def test_a_shipped_space_offers_every_block_the_same_choices(name):
    space = SearchSpace.load(name)
    blocks = list(get_backbone(name).blocks())
    assert (space.name, space.backbone, space.granularity) == (name, name, "block")
    assert [position.name for position in space.positions] == blocks
    choices = {"densenet100": 30, "densenet190": 30, "shufflenet-g3": 16}.get(name, 24)
    assert space.count() == choices ** len(blocks)
    least, greatest = space.table.least(), space.table.greatest()
    plain = Architecture.of(name, "vanilla").cost()
    assert least["macs"] <= plain.macs < greatest["macs"]
    assert least["params"] <= plain.params < greatest["params"]


@pytest.mark.parametrize(
    ("granularity", "names", "count"),
    [
        ("block", [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)], 6**9),
        ("stage", ["layer1", "layer2", "layer3"], 6**3),
        ("network", ["network"], 6),
    ],
)
def test_granularity_decides_who_shares_a_choice(write, granularity, names, count):
    space = SearchSpace.load(write(granularity=granularity))
    assert [position.name for position in space.positions] == names
    assert space.count() == count == math.prod(len(p.choices) for p in space.positions)
    covered = [block for position in space.positions for block in position.blocks]
    assert covered == list(get_backbone("resnet20").blocks())
    for seed in range(5):
        blocks = space.sample(seed=seed, budget=Budget(10**12)).blocks
        for position in space.positions:
            assert len({blocks[block] for block in position.blocks}) == 1


def test_a_blocks_override_stands_before_its_stages_before_the_spaces(write):
    overrides = {
        "layer2": {"recalibration": ["none", "se", "msar"], "convolution": ["scconv"]},
        "layer2.1": {"convolution": ["psconv(pattern=1-2)", "vanilla"]},
    }
    options = SearchSpace.load(write(overrides=overrides)).options()
    assert options["layer1.0.convolution"] == ("vanilla", "psconv", "scconv(r=2)")
    assert options["layer1.0.recalibration"] == ("none", "ab")
    assert options["layer2.0.convolution"] == options["layer2.2.convolution"] == ("scconv",)
    assert options["layer2.1.convolution"] == ("psconv(pattern=1-2)", "vanilla")
    assert options["layer2.1.recalibration"] == ("none", "se", "msar")


@pytest.mark.parametrize("granularity", ["stage", "network"])
def test_blocks_that_share_a_choice_need_the_same_options(write, granularity):
    path = write(granularity=granularity, overrides={"layer2.1": {"recalibration": ["se"]}})
    with pytest.raises(InputError, match=r"overrides: the blocks of .* share one choice"):
        SearchSpace.load(path)


SPACES = {
    "block": {"overrides": {"layer1.0": {"recalibration": ["se"]}, "layer3": {"convolution": ["scconv"]}}},
    "stage": {"granularity": "stage", "overrides": {"layer2": {"recalibration": ["none", "msar"]}}},
    "network": {"granularity": "network", "num_classes": 100, "proxy": {"width": 0.5, "resolution": 16}},
}


@pytest.mark.parametrize("changes", SPACES.values(), ids=SPACES.keys())
def test_a_space_can_be_loaded_from_its_description(write, tmp_path, changes):
    space = SearchSpace.load(write(**changes))
    path = tmp_path / "again.yaml"
    path.write_text(space.describe())
    assert SearchSpace.load(path) == space
    assert SearchSpace.load(path).describe() == space.describe()


@pytest.mark.parametrize("changes", SPACES.values(), ids=SPACES.keys())
def test_picks_parameters_and_architectures_are_the_same_thing(write, changes):
    space = SearchSpace.load(write(**changes))

    @examples(20)
    @given(st.tuples(*(st.integers(0, len(position.choices) - 1) for position in space.positions)))
    def check(indices):
        architecture = space.from_indices(indices)
        assert space.indices_of(architecture) == indices
        parameters = space.encode(architecture)
        assert all(value in space.options()[name] for name, value in parameters.items())
        assert space.decode(parameters) == architecture

    check()


def test_different_picks_are_different_architectures(write):
    space = SearchSpace.load(write(granularity="stage"))
    assert len({space.from_indices(indices) for indices in np.ndindex(6, 6, 6)}) == space.count()


def test_parameters_carry_the_names_of_blocks(write):
    space = SearchSpace.load(write())
    parameters = space.encode(Architecture.of("resnet20", "scconv(r=2)+ab"))
    assert list(parameters)[:2] == ["layer1.0.convolution", "layer1.0.recalibration"]
    assert set(parameters.values()) == {"scconv(r=2)", "ab"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2.1.convolution": "scconv"}, r"layer2\.1\.convolution: 'scconv' is not one of vanilla"),
        ({"layer2.1.recalibration": None}, r"layer2\.1\.recalibration: None is not one of none, ab"),
    ],
)
def test_decode_names_the_parameter_that_is_wrong(write, change, message):
    space = SearchSpace.load(write())
    parameters = {**space.encode(Architecture.of("resnet20", "vanilla")), **change}
    with pytest.raises(InputError, match=message):
        space.decode(parameters)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Architecture.of("resnet20", "se"), r"layer1: vanilla\+se is not one of vanilla, .*psconv"),
        (Architecture.of("resnet32", "ab"), "resnet32 is not an architecture of the space small"),
        (Architecture.of("resnet20", "ab", num_classes=7), "not an architecture of the space small"),
        (Architecture.of("resnet20", {**MIXED, "layer2.1": "psconv"}), "layer2: "),
    ],
)
def test_refuses_an_architecture_of_another_space(write, architecture, message):
    with pytest.raises(InputError, match=message):
        SearchSpace.load(write(granularity="stage")).encode(architecture)


def test_encode_refuses_what_is_no_architecture():
    with pytest.raises(InputError, match=r"^architecture: expected an Architecture, found str"):
        SearchSpace.load("resnet20").encode("best.yaml")


def test_samples_follow_from_the_seed_and_fit_the_budget():
    space = SearchSpace.load("resnet20")
    budget = Budget(40_000_000, 280_000)
    samples = [space.sample(seed=seed, budget=budget) for seed in (0, 0, 1, 2)]
    assert samples[0] == samples[1]
    assert len(set(samples)) == 3
    assert all(budget.allows(vars(sample.cost())) for sample in samples)


def test_many_samples_are_within_the_budget_and_follow_from_the_seed():
    space = SearchSpace.load("resnet20")
    first, again, other = (space.sample_many(50, seed=seed, budget="36M") for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) > 45
    assert all(architecture.cost().macs <= 36_000_000 for architecture in first)


def test_counts_what_is_within_a_budget(write):
    space = SearchSpace.load(write(granularity="stage"))
    costs = [space.table.cost(indices) for indices in np.ndindex(6, 6, 6)]
    budget = Budget(39_000_000, 272_000)
    assert 0 < space.count(budget) == sum(map(budget.allows, costs)) < 216
    assert space.count("39M") == sum(cost["macs"] <= 39_000_000 for cost in costs)
    assert space.count() == space.count(Budget()) == 216
    with pytest.raises(InputError, match="below the least possible cost"):
        space.count("1M")


@pytest.mark.parametrize(
    "limit", [39_000_000, 39e6, np.int64(39_000_000), np.float32(39e6), "39M", Budget(39e6)]
)
def test_a_budget_may_be_a_number(write, limit):
    space = SearchSpace.load(str(write(granularity="stage")))
    assert space.count(limit) == space.count(Budget(39_000_000))
    assert space.sample(seed=np.int64(3), budget=limit) == space.sample(seed=3, budget="39M")
    assert space.sample_many(np.int64(0), seed=0, budget=limit) == []


@pytest.mark.parametrize(
    "budget", [0, -1, True, False, math.nan, math.inf, -math.inf, [4], {"macs": 4}, "", b"4G"]
)
def test_what_is_no_budget_is_refused(budget):
    space = SearchSpace.load("resnet20")
    for call in (space.count, space.feasible, lambda one: space.sample(seed=0, budget=one)):
        with pytest.raises(
            InputError, match=r"^budget: .* is not a quantity; write it like 4G, 4\.1e9 or 500M$"
        ):
            call(budget)


@pytest.mark.parametrize("seed", [-1, None, 0.5, True, "0", math.nan, 2**64])
def test_what_is_no_seed_is_refused(seed):
    space = SearchSpace.load("resnet20")
    for call in (space.sample, lambda **options: space.sample_many(3, **options)):
        with pytest.raises(InputError, match=r"^seed: .* is not a whole number from 0 to"):
            call(seed=seed)


@pytest.mark.parametrize("count", [-1, None, 2.0, True, "3"])
def test_what_is_no_number_of_samples_is_refused(count):
    with pytest.raises(InputError, match=r"^count: .* is not a whole number from 0 to"):
        SearchSpace.load("resnet20").sample_many(count, seed=0)


@pytest.mark.parametrize("space", [3, None, ["resnet20"], b"resnet20"])
def test_what_names_no_space_is_refused(space):
    with pytest.raises(InputError, match=r"^space: .* is neither text nor a path"):
        SearchSpace.load(space)


def test_numbers_of_a_file_are_decimal(write):
    path = write(granularity="network")
    path.write_text(f"{path.read_text()}input_size: 032\nproxy: {{width: 25e-2, resolution: 016}}\n")
    space = SearchSpace.load(path)
    assert (space.input_size, space.proxy_width, space.proxy_resolution) == (32, 0.25, 16)


def test_a_choice_with_two_arguments_in_brackets_is_to_be_quoted(write):
    path = write(convolution=None)
    path.write_text(f"{path.read_text()}convolution: [vanilla, scconv(r=2, pooling=max)]\n")
    with pytest.raises(
        InputError, match=r'put the whole choice in quotes, as in "scconv\(r=2, pooling=max\)"'
    ):
        SearchSpace.load(path)
    path.write_text(path.read_text().replace("scconv(r=2, pooling=max)", "'scconv(r=2, pooling=max)'"))
    assert SearchSpace.load(path).options()["layer1.0.convolution"] == ("vanilla", "scconv(pooling=max, r=2)")


@pytest.mark.parametrize("name", ["08", "1e3", "no", "null", "2024-01-01", "0x1F", "1_000"])
def test_a_space_may_have_any_name_in_quotes(write, name):
    path = write(name=None, granularity="network")
    path.write_text(f"{path.read_text()}name: '{name}'\n")
    space = SearchSpace.load(path)
    assert space.name == yaml.safe_load(space.describe())["name"] == name
    assert SearchSpace.parse(space.describe(), "again") == space


def test_samples_without_a_budget():
    space = SearchSpace.load("resnet20")
    assert space.indices_of(space.sample(seed=0)) != space.indices_of(space.sample(seed=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'; allowed: format, name, backbone, input_size"),
        ({"backbone": None}, "missing key 'backbone'"),
        ({"backbone": "resnet21"}, "backbone: unknown backbone 'resnet21'; allowed: resnet18"),
        ({"backbone": ["resnet20"]}, "backbone: .*string, found a list"),
        ({"name": "a b"}, "name: .*found 'a b'"),
        ({"granularity": "layer"}, "granularity: .*'block', 'stage' or 'network', found 'layer'"),
        ({"input_size": 0}, "input_size: .*greater than or equal to 1, found 0"),
        ({"convolution": []}, "convolution: .*at least 1 item.*, found a list"),
        ({"convolution": "vanilla"}, "convolution: .*list, found 'vanilla'"),
        ({"convolution": ["vanilla", ["scconv"]]}, r"convolution\.1: .*string, found a list"),
        ({"convolution": ["dynconv"]}, "convolution: unknown convolution 'dynconv'; allowed: vanilla"),
        ({"convolution": ["ab"]}, "convolution: unknown convolution 'ab'; allowed: vanilla"),
        (
            {"convolution": ["scconv(q=1)"]},
            "convolution: scconv takes no argument 'q'; allowed: r, ceil",
        ),
        ({"convolution": ["scconv(r=0)"]}, "convolution: scconv: r = 0 is not a whole number of at least 1"),
        ({"recalibration": ["ab(groups=3)"]}, r"layer1\.0: ab: groups = 3 is not a divisor of the channels"),
        ({"recalibration": ["msar(scales=16)"]}, r"layer3\.0: msar: scales = \(16,\) is not within"),
        ({"recalibration": ["ab", "psconv+ab"]}, r"recalibration: 'psconv\+ab' is not an operator"),
        ({"recalibration": ["ab-plus", "ab(groups=1)"]}, r"recalibration: .*are the same operator"),
        ({"overrides": {"layer4": {}}}, "overrides: 'layer4' is neither a block nor a stage of resnet20"),
        ({"overrides": {"layer1": {"a": []}}}, r"unknown key 'overrides\.layer1\.a'; allowed: convolution"),
        ({"overrides": {"layer1": {"convolution": ["x"]}}}, r"overrides\.layer1\.convolution: unknown"),
        ({"proxy": {"width": 0}}, r"proxy\.width: .*greater than 0, found 0"),
        ({"proxy": {"depth": 1}}, r"unknown key 'proxy\.depth'; allowed: width, resolution"),
    ],
)
def test_load_names_the_file_and_the_key(write, changes, message):
    path = write(**changes)
    with pytest.raises(InputError, match=message) as refusal:
        SearchSpace.load(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_load_refuses_a_key_given_twice(write):
    path = write()
    path.write_text(path.read_text() + "name: other\n")
    with pytest.raises(InputError, match=r"small\.yaml:10: the key 'name' is given twice"):
        SearchSpace.load(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", "unknown space 'resnet51'; allowed: ablation-booster, .*, or the path of a .yaml file"),
        ("nowhere/space.yaml", r"nowhere/space\.yaml: cannot be read: No such file"),
    ],
)
def test_load_says_which_spaces_there_are(name, message):
    with pytest.raises(InputError, match=message):
        SearchSpace.load(name)


def test_equal_choices_are_one_choice_of_a_space(write):
    space = SearchSpace.load(write(recalibration=["none", "ab-plus"]))
    written = Architecture.of("resnet20", "psconv(pattern=1-2-1-4)+ab(groups=1)")
    assert space.from_indices(space.indices_of(written)).blocks["layer1.0"] == BlockChoice.parse(
        "psconv+ab-plus"
    )
