"""Fidelities: values out of range are refused, and defaults fit the data set and the device."""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from nas_recalib.data.sources import ArrayImages, Source
from nas_recalib.errors import InputError
from nas_recalib.proxy.fidelity import FIDELITIES, Fidelity, find_fidelity
from nas_recalib.space import SearchSpace

GOOD = Fidelity(images=100, validation=50, resolution=16, width=0.5, epochs=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", 0),
        ("images", -5),
        ("validation", 0),
        ("resolution", 7),
        ("epochs", 0),
        ("epochs", 2**31 + 1),
        ("images", 10**30),
        ("validation", 2**31 + 1),
        ("width", 0),
        ("width", -0.5),
        ("width", 4.1),
        ("width", math.nan),
        ("width", math.inf),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(InputError, match=rf"^{key}: {value} is not .*(at least|at most) \d"):
        replace(GOOD, **{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", 1),
        ("images", None),
        ("validation", 1),
        ("resolution", 8),
        ("epochs", 1),
        ("epochs", 2**31),
        ("width", 4),
    ],
)
def test_the_bounds_themselves_are_allowed(key, value):
    assert getattr(replace(GOOD, **{key: value}), key) == value


def test_as_dict_is_all_of_it():
    assert Fidelity(**GOOD.as_dict()) == GOOD
    assert list(GOOD.as_dict()) == ["images", "validation", "resolution", "width", "epochs"]
    with pytest.raises(FrozenInstanceError):
        GOOD.epochs = 4


def source_of(count, native_size):
    images = ArrayImages(np.zeros((count, 1, 1, 3), dtype=np.uint8), np.arange(count) % 2)
    return Source("test", ("a", "b"), images, None, native_size, flips=True)


@pytest.mark.parametrize(
    ("device", "count", "images", "validation"),
    [
        ("cpu", 50_000, 5000, 5000),
        ("cpu", 1437, 1150, 287),
        ("cpu", 6250, 5000, 1250),
        ("cpu", 6248, 4999, 1249),
        ("cpu", 5, 4, 1),
        ("cuda", 50_000, None, 5000),
        ("cuda", 1437, None, 287),
    ],
)
def test_defaults_fit_the_set_and_the_device(device, count, images, validation):
    fidelity = find_fidelity(
        "standard", SearchSpace.load("resnet20"), source_of(count, 32), torch.device(device)
    )
    assert (fidelity.images, fidelity.validation) == (images, validation)
    assert (images or 0) + validation <= count


def test_a_cpu_trains_for_fewer_epochs_than_a_gpu():
    space, source = SearchSpace.load("resnet20"), source_of(50_000, 32)
    cpu, gpu = (
        find_fidelity("standard", space, source, torch.device(name)).epochs for name in ("cpu", "cuda")
    )
    assert 1 <= cpu < gpu


@pytest.mark.parametrize(
    ("native_size", "resolution"), [(8, 16), (16, 16), (24, 24), (32, 32), (96, 32), (None, 32)]
)
def test_a_gpu_sees_images_of_16_pixels_at_least_and_of_the_space_at_most(native_size, resolution):
    space = SearchSpace.load("resnet20")
    fidelity = find_fidelity("standard", space, source_of(100, native_size), torch.device("cuda"))
    assert fidelity.resolution == resolution
    assert fidelity.width == space.proxy_width == 1


def test_a_set_too_small_to_validate_on_is_refused():
    with pytest.raises(InputError, match="validation"):
        find_fidelity("standard", SearchSpace.load("resnet20"), source_of(4, 32), torch.device("cpu"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_rung_of_the_ladder_costs_more_than_the_one_before(device):
    space, source = SearchSpace.load("resnet20"), source_of(50_000, 32)
    rungs = [find_fidelity(name, space, source, torch.device(device)) for name in FIDELITIES]
    passes = [rung.epochs * (rung.images or 45_000) for rung in rungs]
    assert passes == sorted(set(passes))
    assert {rung.validation for rung in rungs} == {5000}


def test_a_file_changes_what_it_names(tmp_path):
    space, source, cpu = SearchSpace.load("resnet20"), source_of(50_000, 32), torch.device("cpu")
    path = tmp_path / "mine.yaml"
    path.write_text("images: 700\nresolution: 24\n")
    quick = find_fidelity("quick", space, source, cpu)
    expected = replace(quick, images=700, resolution=24)
    assert find_fidelity(str(path), space, source, cpu) == expected


@pytest.mark.parametrize(
    ("content", "images", "validation"),
    [
        ("validation: 500", 937, 500),
        ("validation: 20", 1150, 20),
        ("validation: 500\nimages: 1000", 1000, 500),
        ("validation: 2000", 1150, 2000),
    ],
)
def test_images_make_room_for_validation_unless_they_are_asked_for(tmp_path, content, images, validation):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    space, source = SearchSpace.load("resnet20"), source_of(1437, 8)
    found = find_fidelity(str(path), space, source, torch.device("cpu"))
    assert (found.images, found.validation) == (images, validation)
    assert find_fidelity(str(path), space, source, torch.device("cuda")).validation == validation


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("epochs: 0", "epochs: 0 is not at least 1"), ("epoch: 3", "epoch"), ("width: wide", "width")],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, content, complaint):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"mine\.yaml.*{complaint}"):
        find_fidelity(str(path), SearchSpace.load("resnet20"), source_of(100, 32), torch.device("cpu"))


def test_numbers_of_a_file_are_decimal(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 010\nresolution: 016\nwidth: 25e-2\nimages: +50\n")
    found = find_fidelity(
        str(path), SearchSpace.load("resnet20"), source_of(1437, 8), torch.device("cpu")
    ).as_dict()
    assert found == {"images": 50, "validation": 287, "resolution": 16, "width": 0.25, "epochs": 10}


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"'fast'; allowed: quick, standard, thorough, or a \.yaml file"):
        find_fidelity("fast", SearchSpace.load("resnet20"), source_of(100, 32), torch.device("cpu"))


def test_a_quick_trial_on_a_cpu_shows_deep_networks_fewer_images():
    source, cpu = source_of(50_000, 32), torch.device("cpu")

    def images(space):
        return find_fidelity("quick", SearchSpace.load(space), source, cpu).images

    assert images("resnet20") == images("resnet18") == 5000
    assert images("resnet50") == 9 * 5000 // 16
    assert images("resnet152") == 1000
