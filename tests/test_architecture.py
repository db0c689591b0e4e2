"""Architectures: equality, and round trips through every written form."""

import math

import numpy as np
import pytest
import torch
import yaml
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.architecture import Architecture, build, cost
from nas_recalib.costs import Cost
from nas_recalib.errors import InputError
from nas_recalib.networks import backbone_names, get_backbone
from nas_recalib.operators import BlockChoice

TEXTS = ["vanilla", "scconv(r=2)", "psconv(pattern=1-2, vary=in)+ab", "msar(scales=1-2, share=yes)", "se"]


@st.composite
def architectures(draw):
    name = draw(st.sampled_from(backbone_names()))
    blocks = {block: draw(st.sampled_from(TEXTS)) for block in get_backbone(name).blocks()}
    size, classes = draw(st.integers(8, 300)), draw(st.integers(1, 2000))
    return Architecture.of(name, blocks, input_size=size, num_classes=classes)


@examples(40)
@given(architectures())
def test_parse_reads_what_str_wrote(architecture):
    assert Architecture.parse(str(architecture)) == architecture


@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_load_reads_what_save_wrote(tmp_path, name):
    blocks = {block: TEXTS[i % len(TEXTS)] for i, block in enumerate(get_backbone(name).blocks())}
    architecture = Architecture.of(name, blocks, input_size=96, num_classes=7)
    path = tmp_path / "best.yaml"
    architecture.save(path, origin={"study": "first", "trial": 117, "accuracy": 0.914})
    assert Architecture.load(path) == architecture
    content = yaml.safe_load(path.read_text())
    assert content["origin"] == {"study": "first", "trial": 117, "accuracy": 0.914}
    assert Cost(**content["cost"]) == architecture.cost()
    assert [p.name for p in tmp_path.iterdir()] == ["best.yaml"]


def test_equal_if_it_builds_the_same_network():
    one = Architecture.of("resnet20", "ab(groups=1)+psconv(pattern=1-2-1-2)")
    blocks = dict.fromkeys(reversed(one.blocks), "psconv(vary=both, pattern=1-2)+ab-plus")
    same = Architecture.of("resnet20", blocks, input_size=32, num_classes=10)
    assert same == one
    assert len({one, same}) == 1
    assert str(same) == str(one)
    others = [
        Architecture.of("resnet20", "psconv(pattern=1-2)+ab"),
        Architecture.of("resnet20", blocks, input_size=64),
        Architecture.of("resnet20", blocks, num_classes=100),
        Architecture.of("resnet20", {**blocks, "layer1.0": "vanilla"}),
        Architecture.of("resnet32", BlockChoice.parse("psconv(pattern=1-2)+ab-plus")),
    ]
    assert len({one, *others}) == 1 + len(others)


def test_a_backbone_supplies_the_defaults():
    assert str(Architecture.of("resnet18", "ab")).startswith("resnet18@224/1000 layer1.0=vanilla+ab layer1.1")
    assert str(Architecture.of("resnet20", "ab")).startswith("resnet20@32/10 ")


@pytest.mark.parametrize(
    ("backbone", "blocks", "sizes", "message"),
    [
        ("resnet19", "ab", {}, "unknown backbone 'resnet19'; allowed: resnet18"),
        ("resnet18", "abc", {}, "layer1.0: unknown operator 'abc'; allowed: vanilla"),
        ("resnet18", {}, {}, "no choice for the block 'layer1.0' of resnet18"),
        ("resnet18", {"layer1.2": "ab"}, {}, "resnet18 has no block 'layer1.2'; its blocks: layer1.0"),
        ("resnet18", "ab", {"input_size": 0}, "input_size: 0 is not a whole number from 1 to 1,000,000"),
        ("resnet18", "ab", {"input_size": 224.0}, "input_size: 224.0 is not a whole number"),
        ("resnet18", "ab", {"input_size": math.nan}, "input_size: nan is not a whole number"),
        ("resnet18", "ab", {"input_size": "224"}, "input_size: '224' is not a whole number"),
        ("resnet18", "ab", {"num_classes": -1}, "num_classes: -1 is not a whole number from 1 to 1,000,000"),
        ("resnet18", "ab", {"num_classes": True}, "num_classes: True is not a whole number"),
        (
            "resnet18",
            "ab",
            {"num_classes": 0},
            r"num_classes: 0 .*; for a network without a classifier, .*build",
        ),
        (["resnet18"], "ab", {}, r"backbone: \['resnet18'\] is not the name of a backbone"),
        (None, "ab", {}, "backbone: None is not the name of a backbone"),
        ("resnet18", ["ab"], {}, r"blocks: \['ab'\] is neither a choice nor a mapping"),
        ("resnet18", None, {}, "blocks: None is neither a choice nor a mapping"),
        (
            "resnet20",
            "psconv(depthwise=blocks)",
            {},
            "layer1.0: psconv: depthwise is for depthwise convolutions, and this backbone has none",
        ),
        (
            "resnet20",
            dict.fromkeys(get_backbone("resnet20").blocks(), 3),
            {},
            r"layer1\.0: 3 is not a choice",
        ),
    ],
)
def test_says_what_is_wrong(backbone, blocks, sizes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Architecture.of(backbone, blocks, **sizes)


@pytest.mark.parametrize("text", ["", "resnet20", "resnet20@32 layer1.0=ab", "resnet20@32/10 ab", "@32/10"])
def test_parse_refuses_another_form(text):
    with pytest.raises(ValueError, match="is not an architecture; expected backbone@size/classes"):
        Architecture.parse(text)


def test_parse_refuses_a_block_given_twice():
    with pytest.raises(ValueError, match=r"layer1\.0"):
        Architecture.parse(f"{Architecture.of('resnet20', 'vanilla')} layer1.0=ab")


def saved(path, **changes):
    """An architecture file with some of its keys replaced, or left out where the new value is None."""
    Architecture.of("resnet20", "psconv+ab").save(path)
    content = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


BLOCKS = dict.fromkeys(get_backbone("resnet20").blocks(), "psconv+ab")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'; allowed: format, backbone, input_size, num_classes"),
        ({"backbone": None}, "missing key 'backbone'"),
        ({"format": "nas-recalib/architecture/3"}, "format: .*'nas-recalib/architecture/1' or '.*/2'"),
        ({"backbone": ["resnet20"]}, "backbone: .*string, found a list"),
        ({"backbone": "resnet21"}, "unknown backbone 'resnet21'"),
        ({"input_size": "32"}, "input_size: .*integer, found '32'"),
        ({"num_classes": 0}, "num_classes: 0 is not from 1 to 1,000,000; for a network without"),
        ({"blocks": "ab"}, "blocks: .*found 'ab'"),
        ({"blocks": {**BLOCKS, "layer1.0": ["ab"]}}, r"blocks\.layer1\.0: .*string, found a list"),
        ({"blocks": {**BLOCKS, "layer1.0": "dynconv"}}, r"layer1\.0: unknown operator 'dynconv'; allowed"),
        (
            {"blocks": {**BLOCKS, "layer1.0": "scconv(r=0)"}},
            r"layer1\.0: scconv: r = 0 is not a whole number of at least 1",
        ),
        ({"blocks": {**BLOCKS, "layer3.0": "msar(scales=9)"}}, r"layer3\.0: msar: scales = \(9,\) is not"),
        ({"blocks": {**BLOCKS, "layer4.0": "ab"}}, r"resnet20 has no block 'layer4\.0'; its blocks: "),
        ({"blocks": {"layer1.0": "ab"}}, r"no choice for the block 'layer1\.1' of resnet20"),
        ({"cost": {"macs": 1, "params": 2}}, r"cost\.macs is 1, but its blocks cost 408\d+; was it edited\?"),
        ({"cost": {"macs": 1}}, r"missing key 'cost\.params'"),
        ({"cost": {"macs": 1, "params": 2, "ms": 3}}, r"unknown key 'cost\.ms'; allowed: macs, params"),
        ({"blocks": {**BLOCKS, "layer1.0": "psconv"}}, r"cost\.macs is \d+, but its blocks cost \d+"),
    ],
)
def test_load_names_the_file_and_the_key(tmp_path, changes, message):
    path = saved(tmp_path / "best.yaml", **changes)
    with pytest.raises(InputError, match=message) as refusal:
        Architecture.load(path)
    assert str(refusal.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": expected keys and values, found nothing"),
        (b"- a\n- b\n", ": expected keys and values, found a list"),
        (b"backbone: a\nblocks: {x: 1, y: 2,\n  x: 3}\n", ":3: the key 'x' is given twice"),
        (b"backbone: [a\n", ":2: "),
        (b"backbone: !!python/object/apply:os.getcwd []\n", ":1: could not determine a constructor"),
        (b"\xff\xfe\xff", ": cannot be read: not "),
        (None, ": cannot be read: No such file or directory"),
    ],
)
def test_load_refuses_what_is_no_such_file(tmp_path, content, message):
    path = tmp_path / "best.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        Architecture.load(path)
    assert str(refusal.value).startswith(f"{path}{message}")


@pytest.mark.parametrize("path", [3, None, ["a.yaml"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match=r"^path: .* is neither text nor a path"):
        Architecture.load(path)
    with pytest.raises(InputError, match=r"^path: .* is neither text nor a path"):
        Architecture.of("resnet20", "ab").save(path)


def test_a_file_by_hand_needs_no_cost(tmp_path):
    path = saved(tmp_path / "best.yaml", cost=None)
    assert "cost" not in path.read_text()
    assert Architecture.load(str(path)) == Architecture.of("resnet20", "psconv+ab")


def test_a_block_or_class_named_no_is_no_boolean(tmp_path):
    path = saved(tmp_path / "best.yaml")
    path.write_text(path.read_text().replace("layer1.0: psconv+ab", "layer1.0: no"))
    with pytest.raises(InputError, match=r"layer1\.0: unknown operator 'no'; allowed: vanilla"):
        Architecture.load(path)


def test_a_size_with_leading_zeros_is_decimal(tmp_path):
    path = saved(tmp_path / "best.yaml")
    path.write_text(path.read_text().replace("input_size: 32", "input_size: 032"))
    assert Architecture.load(path).input_size == 32


def test_save_says_where_it_cannot_write(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/best\.yaml: cannot be written: No such file or directory"):
        Architecture.of("resnet20", "ab").save(tmp_path / "nowhere" / "best.yaml")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = saved(tmp_path / "best.yaml")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"<object object at .*> cannot be written to a YAML file"):
        Architecture.of("resnet20", "ab").save(path, origin={"study": object()})
    assert path.read_bytes() == before


def test_a_seed_decides_the_initial_weights():
    architecture = Architecture.of("resnet20", "scconv+msar")
    first, again, other = (build(architecture, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_building_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    build(Architecture.of("resnet20", "ab"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_builds_for_other_classes_and_channels(normal):
    network = build(Architecture.of("resnet20", "psconv+se"), num_classes=3, in_channels=1).eval()
    assert network(normal(2, 1, 32, 32, dtype=torch.float32)).shape == (2, 3)


def test_zero_classes_are_not_the_default(normal):
    network = build(Architecture.of("resnet20", "ab"), num_classes=0).eval()
    assert network(normal(2, 3, 32, 32, dtype=torch.float32)).shape[1] != 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": -1}, "num_classes: -1 is not a whole number from 0 to 1,000,000"),
        ({"num_classes": 10.0}, r"num_classes: 10\.0 is not a whole number"),
        ({"num_classes": False}, "num_classes: False is not a whole number"),
        ({"in_channels": 0}, "in_channels: 0 is not a whole number from 1 to"),
        ({"in_channels": "rgb"}, "in_channels: 'rgb' is not a whole number"),
        ({"seed": -1}, "seed: -1 is not a whole number from 0 to"),
        ({"seed": None}, "seed: None is not a whole number"),
        ({"seed": 2**64}, "seed: 18446744073709551616 is not a whole number"),
    ],
)
def test_build_names_the_argument_that_is_wrong(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        build(Architecture.of("resnet20", "ab"), **options)


@pytest.mark.parametrize("call", [build, cost])
@pytest.mark.parametrize("architecture", ["best.yaml", None, get_backbone("resnet20")])
def test_what_is_no_architecture_is_refused(call, architecture):
    with pytest.raises(
        InputError, match=r"^architecture: expected an Architecture, found \w+; Architecture\.load reads"
    ):
        call(architecture)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch: 0 is not a whole number"),
        ({"device": "tpu"}, "device: 'tpu' is not cpu or cuda"),
    ],
)
def test_memory_names_the_argument_that_is_wrong(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        Architecture.of("resnet20", "ab").memory(**options)


def test_an_origin_is_a_mapping(tmp_path):
    with pytest.raises(InputError, match=r"^origin: \['study'\] is not a mapping"):
        Architecture.of("resnet20", "ab").save(tmp_path / "best.yaml", origin=["study"])


def test_integers_of_numpy_are_whole_numbers():
    architecture = Architecture.of("resnet20", "ab", input_size=np.int64(32), num_classes=np.uint8(10))
    assert architecture == Architecture.of("resnet20", "ab")
    assert {type(architecture.input_size), type(architecture.num_classes)} == {int}
    assert build(architecture, num_classes=np.int32(3), seed=np.int64(1)).fc.out_features == 3
