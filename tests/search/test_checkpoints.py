"""Checkpoints of a search: complete or absent, in a folder or under a URL, and safe to read."""

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import fsspec
import pytest
import torch
from examples import examples
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas_recalib.data import load_resident, open_source
from nas_recalib.errors import InputError
from nas_recalib.proxy.train import Recipe, Training
from nas_recalib.search.checkpoints import Checkpoints


class Unreachable(MemoryFileSystem):
    """Filesystem whose server does not answer."""

    protocol = "unreachable"
    cachable = False

    def _refuse(self, *_, **__):
        raise ConnectionError("no route\nand much more")

    pipe_file = cat_file = rm_file = _refuse


class ReadOnly(MemoryFileSystem):
    protocol = "readonly"
    cachable = False

    def pipe_file(self, *_, **__):
        raise PermissionError(13, "Access Denied")


fsspec.register_implementation("unreachable", Unreachable)
fsspec.register_implementation("readonly", ReadOnly)


@cache
def training():
    data = load_resident(open_source("digits", Path()), 8, 20, 20, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 10))
    made = Training(network, data, 2, seed=0, dtype=torch.float32, recipe=Recipe(batch_size=10))
    next(iter(made))
    return made


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture(params=["folder", "text", "file", "memory"])
def place(request, tmp_path):
    folder = tmp_path / "new" / "checkpoints"
    yield {
        "folder": folder,
        "text": str(folder),
        "file": f"file://{folder}",
        "memory": "memory://study/checkpoints/",
    }[request.param]
    MemoryFileSystem.store.clear()


def test_a_state_is_loaded_until_it_is_dropped(place):
    checkpoints = Checkpoints(place)
    checkpoints.require_writable()
    assert checkpoints.load(3) is None
    checkpoints.drop(3)
    state = training().state_dict()
    checkpoints.save(3, {"curve": []})
    checkpoints.save(3, state)
    checkpoints.save(12345678, {"curve": []})
    assert same(Checkpoints(place).load(3), state)
    assert checkpoints.load(4) is None
    checkpoints.drop(3)
    assert checkpoints.load(3) is None
    assert checkpoints.load(12345678) == {"curve": []}
    filesystem, root = fsspec.url_to_fs(str(place))
    assert [Path(name).name for name in filesystem.find(root)] == ["12345678.pt"], "no other file is left"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "unreachable://who:secret@there/a/",
            "unreachable://who:***@there/a/{}: cannot be {}: ConnectionError: no route",
        ),
        ("nonesuch://there", "nonesuch://there/{}: cannot be {}: ValueError: Protocol not known: nonesuch"),
    ],
)
def test_a_store_out_of_reach_is_an_error_and_not_a_missing_checkpoint(url, message):
    checkpoints = Checkpoints(url)
    with pytest.raises(InputError) as load:
        checkpoints.load(7)
    with pytest.raises(InputError) as save:
        checkpoints.save(7, {"curve": []})
    with pytest.raises(InputError) as drop:
        checkpoints.drop(7)
    with pytest.raises(InputError, match="cannot be written") as early:
        checkpoints.require_writable()
    messages = [str(raised.value) for raised in (load, save, drop)]
    assert messages == [message.format("00007.pt", attempt) for attempt in ("read", "written", "deleted")]
    assert "\n" not in str(early.value)
    assert "secret" not in str(early.value)


def test_a_read_only_store_is_refused_before_a_search():
    checkpoints = Checkpoints("readonly://study")
    assert checkpoints.load(1) is None
    with pytest.raises(
        InputError, match=r"^readonly://study/writable-\w+: cannot be written: Access Denied$"
    ):
        checkpoints.require_writable()


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_the_message_for_a_scheme_without_its_driver_names_the_package(scheme, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    checkpoints = Checkpoints(f"{scheme}://bucket/study")
    for attempt in (checkpoints.require_writable, lambda: checkpoints.load(1)):
        with pytest.raises(InputError) as raised:
            attempt()
        assert str(raised.value).startswith(f"{scheme}://bucket/study: {scheme}:// needs another package: ")
        assert package in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("blocked", ["checkpoints", "checkpoints/inside"])
def test_a_path_that_is_not_a_folder_gets_a_message_of_one_line(tmp_path, blocked):
    (tmp_path / "checkpoints").write_text("a file")
    checkpoints = Checkpoints(tmp_path / blocked)
    for attempt in (checkpoints.require_writable, lambda: checkpoints.load(1), lambda: checkpoints.drop(1)):
        with pytest.raises(
            InputError, match=r"^\S*checkpoints\S*: cannot be \w+: (File exists|Not a directory)$"
        ):
            attempt()  # fmt: skip


class Malicious:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize("form", ["pickle", "torch", "torch before 1.6"])
def test_a_malicious_file_is_not_loaded_and_runs_no_code(tmp_path, form, digest):
    witness, path = tmp_path / "witness", tmp_path / "00001.pt"
    state = {"curve": [], "network": Malicious(witness)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "torch")
    if digest:
        path.write_bytes(path.read_bytes() + sha256(path.read_bytes()).digest())
    assert Checkpoints(tmp_path).load(1) is None
    assert not witness.exists()
    with suppress(RuntimeError):  # a plain pickle is not a checkpoint, and runs before torch finds out
        torch.load(path, weights_only=False)
    assert witness.exists(), "the file is malicious"


@pytest.mark.parametrize("content", [[], 3, {}, {"curve": None}, {"curve": [1]}, {"curve": [(1, 0.5)]}])
def test_a_file_of_another_program_is_not_loaded(tmp_path, content):
    path = tmp_path / "00001.pt"
    torch.save(content, path)
    assert Checkpoints(tmp_path).load(1) is None
    path.write_bytes(path.read_bytes() + sha256(path.read_bytes()).digest())
    assert Checkpoints(tmp_path).load(1) is None
    for other in (b"", b"words", sha256().digest(), b"words" + sha256(b"words").digest()):
        path.write_bytes(other)
        assert Checkpoints(tmp_path).load(1) is None


def test_a_checkpoint_can_be_read_with_torch_alone(tmp_path):
    Checkpoints(tmp_path).save(1, training().state_dict())
    assert same(torch.load(tmp_path / "00001.pt", weights_only=True), training().state_dict())


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    Checkpoints(folder).save(0, training().state_dict())
    return (folder / "00000.pt").read_bytes()


@examples(60)
@given(share=st.floats(0, 1, exclude_max=True), more=st.binary(min_size=1, max_size=30))
def test_a_truncated_or_extended_checkpoint_is_not_loaded(real, share, more):
    assert loaded(real[: int(share * len(real))]) is None
    assert loaded(real + more) is None


@examples(200)
@given(flips=st.dictionaries(st.integers(0), st.integers(1, 255), min_size=1, max_size=4))
def test_a_checkpoint_with_flipped_bytes_is_not_loaded_or_equal(real, flips):
    damaged = bytearray(real)
    for position, bits in flips.items():
        damaged[position % len(real)] ^= bits
    found = loaded(bytes(damaged))
    assert found is None or same(found, training().state_dict())


def test_a_tensor_that_is_a_folder_in_the_archive_is_not_loaded(real):
    """Torch would return uninitialised memory, and the archive has no checksum against that."""
    damaged = bytearray(real)
    entry = real.rindex(b"PK\x01\x02", 0, real.rindex(b"archive/data/0"))
    damaged[entry + 38] ^= 0x10  # the folder's bit among the entry's attributes
    assert loaded(bytes(damaged)) is None


def loaded(content):
    """Load a content from a store in memory."""
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/damaged/00000.pt", content)
    return Checkpoints("memory://damaged").load(0)


FILL_UP = """
import resource, signal, sys
from pathlib import Path
import torch
from nas_recalib.errors import InputError
from nas_recalib.search.checkpoints import Checkpoints

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
checkpoints = Checkpoints(folder)
older = {"curve": [(1, 1.0, 0.5)], "network": torch.arange(5_000.0)}
checkpoints.save(1, older)
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for number in (1, 2):
    try:
        checkpoints.save(number, {"curve": [], "network": torch.zeros(1_000_000)})
    except InputError as error:
        print(error)
assert checkpoints.load(1)["network"].equal(older["network"])
assert checkpoints.load(2) is None
assert [path.name for path in folder.iterdir()] == ["00001.pt"], "no part of a file stays"
checkpoints.save(3, older)
"""
SMALL_DISK = 'mkdir -p "$1" && mount -t tmpfs -o size=256k tmpfs "$1" && shift && exec "$@"'


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_write_beyond_the_file_size_limit_keeps_the_older_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    ended = run(sys.executable, "-B", "-c", FILL_UP, str(folder), "100000")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        f"{folder}/{name}: cannot be written: File too large" for name in ("00001.pt", "00002.pt")
    ]


@pytest.mark.soak
def test_a_full_disk_keeps_the_older_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh", str(folder)]
    try:
        mounted = run(*alone, "true")
    except FileNotFoundError:
        pytest.skip("no unshare here to mount a small disk with")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    ended = run(*alone, sys.executable, "-c", FILL_UP, str(folder), "0")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        f"{folder}/{name}: cannot be written: No space left on device" for name in ("00001.pt", "00002.pt")
    ]
