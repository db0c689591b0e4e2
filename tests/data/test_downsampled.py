"""Downsampled ImageNet as it is published; whatever else is in its files is refused, and never run."""

import io
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.data.downsampled import load_downsampled
from nas_recalib.data.resident import load_resident
from nas_recalib.data.sources import open_source
from nas_recalib.errors import InputError

NAMES = [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"]
SIDE, EACH = 8, 60


def batch(number, side=SIDE, labels=None):
    random = np.random.default_rng(number)
    labels = random.integers(1, 1001, size=EACH).tolist() if labels is None else labels
    return {
        "data": random.integers(256, size=(len(labels), 3 * side * side), dtype=np.uint8),
        "labels": labels,
        "mean": random.random(3 * side * side),
    }


def write(root, content=batch, protocol=3):
    root.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        (root / name).write_bytes(pickle.dumps(content(number), protocol))


@pytest.fixture
def root(tmp_path):
    write(tmp_path)
    return tmp_path


def expected(numbers, side=SIDE, classes=1000):
    """By the definition: a row is all reds, row by row, then all greens, then all blues."""
    pixels, labels = [], []
    for content in map(batch, numbers):
        for row, label in zip(content["data"], content["labels"], strict=True):
            if label <= classes:
                pixels.append(np.stack([plane.reshape(side, side) for plane in np.split(row, 3)], axis=-1))
                labels.append(label - 1)
    return np.stack(pixels), np.array(labels)


def same(parts, classes=1000):
    return all(
        all(map(np.array_equal, part, expected(numbers, classes=classes)))
        for part, numbers in zip(parts, (range(10), [10]), strict=True)
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_batches_are_read_whatever_the_protocol(protocol, tmp_path):
    write(tmp_path, protocol=protocol)
    assert same(load_downsampled(tmp_path, SIDE))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "form", [np.array, lambda labels: list(np.array(labels)), lambda labels: np.array(labels, ">i2")]
)
def test_labels_may_be_an_array_or_a_list_of_numpys_numbers(form, protocol, tmp_path):
    def content(number):
        made = batch(number)
        return {**made, "labels": form(made["labels"]), "data": np.asfortranarray(made["data"])}

    write(tmp_path, content, protocol)
    assert same(load_downsampled(tmp_path, SIDE))


def test_batches_of_older_numpy_and_python_are_read(tmp_path):
    def written_by_python_2(content):
        """As cPickle wrote an array: its bytes as a string, under the module names of the time."""
        raw = content["data"].tobytes()
        labels = b"".join(b"I%d\na" % label for label in content["labels"])
        size = len(raw).to_bytes(4, "little")
        shape = b"I%d\nI%d\n\x86" % content["data"].shape
        return (
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
            b"(I1\n" + shape + b"cnumpy\ndtype\n(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntb"
            b"I00\nT" + size + raw + b"tbU\x06labels](lu.".replace(b"](l", b"]" + labels)
        )

    for number, name in enumerate(NAMES):
        content = written_by_python_2(batch(number))
        known = pickle.loads(content, encoding="latin1")
        assert np.array_equal(known["data"], batch(number)["data"])
        (tmp_path / name).write_bytes(content)
    assert same(load_downsampled(tmp_path, SIDE))


def test_npz_batches_are_read_in_the_folders_they_come_in(tmp_path):
    for number, name in enumerate(NAMES):
        folder = tmp_path / ("Imagenet8_val_npz" if name == "val_data" else "Imagenet8_train_npz")
        folder.mkdir(exist_ok=True)
        np.savez(folder / name, **batch(number))
        (tmp_path / ".copies").mkdir(exist_ok=True)
        (tmp_path / ".copies" / name).write_bytes(b"something else")
    assert same(load_downsampled(tmp_path, SIDE))


@pytest.mark.parametrize(("kind", "classes"), [("imagenet8", 1000), ("imagenet8-120", 120)])
def test_the_first_classes_can_be_read_alone(kind, classes, root):
    source = open_source(f"{kind}:{root}", Path())
    parts = [(part.pixels, part.labels) for part in (source.train, source.held_out)]
    assert same(parts, classes)
    assert source.spec == f"{kind}:{root}"
    assert source.classes == tuple(map(str, range(1, classes + 1)))
    assert (source.native_size, source.flips) == (8, True)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_every_published_size_can_be_searched_on(side, tmp_path):
    write(tmp_path, lambda number: batch(number, side, [1, 2, 3, 4] * 3))
    source = open_source(f"imagenet{side}-3:{tmp_path}", Path())
    assert source.native_size == side
    data = load_resident(source, side, 60, 20, seed=0)
    assert data.train_images.shape == (60, 3, side, side)
    assert data.num_classes == 3
    other = open_source(f"imagenet{side}-4:{tmp_path}", Path())
    assert source.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("classes", ["1", "1001", "9999"])
def test_numbers_of_classes_out_of_range_are_refused(classes, root):
    with pytest.raises(InputError, match=rf"^data: {classes} classes of .* are not from 2 to 1000\Z"):
        open_source(f"imagenet8-{classes}:{root}", Path())


@pytest.mark.parametrize(
    "kind", ["imagenet9", "imagenet16-", "imagenet16-0", "imagenet-120", "imagenet16-12x"]
)
def test_other_names_are_unknown(kind, root):
    with pytest.raises(InputError, match="unknown set"):
        open_source(f"{kind}:{root}", Path())


def put(root, name, **changes):
    """Changes one batch; None removes a key."""
    content = {**batch(NAMES.index(name)), **changes}
    content = {key: value for key, value in content.items() if value is not None}
    (root / name).write_bytes(pickle.dumps(content, 3))


LABELS = batch(6)["labels"]
SPOILT = {
    "missing": (lambda file: file.unlink(), "is missing"),
    "empty": (lambda file: file.write_bytes(b""), "is not a batch of images"),
    "text": (lambda file: file.write_text("hello"), "is not a batch of images"),
    "cut short": (lambda file: file.write_bytes(file.read_bytes()[:-900]), "is not a batch of images"),
    "a list": (lambda file: file.write_bytes(pickle.dumps([1, 2])), "no dictionary"),
    "no data": (lambda file: put(file.parent, file.name, data=None), "has no 'data'"),
    "no labels": (lambda file: put(file.parent, file.name, labels=None), "has no 'labels'"),
    "another size": (lambda file: put(file.parent, file.name, **batch(6, 16)), "no images of 8 x 8"),
    "floats": (lambda file: put(file.parent, file.name, data=np.ones((EACH, 192))), "no images of 8 x 8"),
    "a list of data": (lambda file: put(file.parent, file.name, data=[1, 2]), "no images of 8 x 8"),
    "flat": (lambda file: put(file.parent, file.name, data=np.ones(192, np.uint8)), "no images of 8 x 8"),
    "a label short": (lambda file: put(file.parent, file.name, labels=LABELS[:-1]), "not one label for each"),
    "texts": (lambda file: put(file.parent, file.name, labels=["1"] * EACH), "not one label for each"),
    "halves": (lambda file: put(file.parent, file.name, labels=[0.5] * EACH), "not one label for each"),
    "uneven": (lambda file: put(file.parent, file.name, labels=[[1], [1, 2]]), "not one label for each"),
    "vast": (lambda file: put(file.parent, file.name, labels=[2**70] * EACH), "not one label for each"),
    "label 0": (lambda file: put(file.parent, file.name, labels=[0, *LABELS[1:]]), "the label 0, which"),
    "label 1001": (lambda file: put(file.parent, file.name, labels=[*LABELS[1:], 1001]), "the label 1001, "),
    "objects": (
        lambda file: put(file.parent, file.name, data=np.array([None, 1])),
        "an array of 'O8', not of numbers",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_a_file_with_other_content_is_named_in_one_line(spoil, message, root):
    spoil(root / NAMES[6])
    with pytest.raises(InputError, match=rf"^data: {root / NAMES[6]} .*{message}.*\Z"):
        load_downsampled(root, SIDE)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"data: .*nowhere.* cannot be read"):
        open_source(f"imagenet16:{tmp_path / 'nowhere'}", Path())


class Runs:
    """Unpickled freely, calls what it was given."""

    def __init__(self, call, *arguments):
        self.reduced = (call, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def attacks(tmp_path):
    """Objects that do harm when they are unpickled freely, and the file that would tell of it."""
    mark = tmp_path / "mark"
    harm = [
        Runs(os.system, f"touch {mark}"),
        Runs(subprocess.check_call, ["touch", str(mark)]),
        Runs(eval, f"open({str(mark)!r}, 'w')"),
        Runs(io.open, str(mark), "w"),
        Runs(np.savetxt, str(mark), [1]),
    ]
    return mark, harm


def test_the_attacks_work_on_an_unrestricted_unpickler(attacks):
    mark, harm = attacks
    for attack in harm:
        pickle.loads(pickle.dumps(attack))
        mark.unlink()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("where", ["whole", "data", "labels", "mean"])
def test_a_malicious_pickle_is_refused_and_not_executed(where, protocol, attacks, root):
    mark, harm = attacks
    for attack in harm:
        content = attack if where == "whole" else {**batch(0), where: attack}
        (root / NAMES[0]).write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(InputError, match=r"would run .*, and cannot be trusted\Z") as caught:
            load_downsampled(root, SIDE)
        assert str(caught.value).startswith(f"data: {root / NAMES[0]} ")
        assert not mark.exists()


def test_an_npz_with_a_pickle_is_refused_and_not_executed(attacks, root):
    mark, harm = attacks
    (root / NAMES[0]).unlink()
    file = root / f"{NAMES[0]}.npz"
    np.savez(file, data=np.array(harm, dtype=object), labels=batch(0)["labels"])
    with pytest.raises(InputError, match=rf"^data: {file} is not a batch of images: .*allow_pickle=False"):
        load_downsampled(root, SIDE)
    file.write_bytes(pickle.dumps(harm))
    with pytest.raises(InputError, match=rf"^data: {file} is not a batch of images"):
        load_downsampled(root, SIDE)
    assert not mark.exists()


SOUND = [pickle.dumps(batch(0, labels=[1, 2, 3]), protocol) for protocol in (0, 2, 3, 5)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    write(root, lambda number: batch(number, labels=[1, 2, 3]))
    return root


@examples(150)
@given(data=st.data(), content=st.sampled_from(SOUND))
def test_damage_is_undetected_or_refused_by_name(data, content, small):
    content = bytearray(content)
    head = st.integers(0, 120) | st.integers(0, len(content) - 1)  # where the pickle says what it is
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(head)] = data.draw(st.integers(0, 255))
    (small / NAMES[0]).write_bytes(content)
    try:
        pixels, labels = load_downsampled(small, SIDE)[0]
    except InputError as error:
        message, valid = str(error), False
    else:
        message, valid = "", pixels.shape == (len(labels), SIDE, SIDE, 3)
    assert valid or message.startswith(f"data: {small / NAMES[0]} ")
