"""CIFAR from a cache: downloaded once, verified, and given up in time; `auto` falls back on the digits."""

import hashlib
import io
import pickle
import tarfile
import threading
import time
import urllib.error
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from nas_recalib.data.sources import cached, load_cifar, open_source
from nas_recalib.errors import InputError

SETS = {"cifar10": (CIFAR10, "labels"), "cifar100": (CIFAR100, "fine_labels")}
CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def serve(monkeypatch):
    """Starts a server on this machine that `answer` answers for, and lets torchvision download from it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(answer, name="cifar10"):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.server.requests += 1
                with suppress(OSError):  # the client may hang up
                    answer(self)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.requests = 0
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(SETS[name][0], "url", f"http://127.0.0.1:{server.server_port}/set.tar.gz")
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.socket.close()


def answering(body, status=200, **headers):
    """Answers at once, with headers that need not be true."""
    headers = headers or {"Content_Length": len(body)}

    def answer(request):
        request.protocol_version = "HTTP/1.1"
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key.replace("_", "-"), str(value))
        request.end_headers()
        request.wfile.write(body)

    return answer


def dripping(seconds):
    """Answers with ten bytes of a megabyte every twentieth of a second, and hangs up in the end."""

    def answer(request):
        answering(b"", Content_Length=1_000_000)(request)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            request.wfile.write(bytes(10))
            time.sleep(0.05)

    return answer


def babbling(request):
    request.wfile.write(b"this is not HTTP\r\n\r\n")


@pytest.fixture
def archive(monkeypatch):
    """Lets torchvision take a tiny archive for the set; gives the archive, its pixels and its labels."""

    def make(name):
        dataset, key = SETS[name]
        random = np.random.default_rng(len(name))
        members, pixels, labels = {}, [], []

        def add(file, content):
            members[file] = pickle.dumps(content)
            return hashlib.md5(members[file]).hexdigest()

        def add_images(file):
            flat, named = random.integers(256, size=(6, 3072), dtype=np.uint8), [0, 1, 2, 2, 1, 0]
            pixels.append(flat.reshape(6, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.extend(named)
            return [file, add(file, {"data": flat, key: named})]

        for part in ("train_list", "test_list"):
            monkeypatch.setattr(dataset, part, [add_images(file) for file, _ in getattr(dataset, part)])
        meta = dataset.meta
        checksum = add(meta["filename"], {meta["key"]: list(CLASSES)})
        monkeypatch.setattr(dataset, "meta", {**meta, "md5": checksum})
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for file, content in members.items():
                info = tarfile.TarInfo(f"{dataset.base_folder}/{file}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        monkeypatch.setattr(dataset, "tgz_md5", hashlib.md5(packed.getvalue()).hexdigest())
        return packed.getvalue(), np.concatenate(pixels), np.array(labels)

    return make


@pytest.mark.parametrize("name", SETS)
def test_the_data_set_is_downloaded_once_and_read_unchanged(name, archive, serve, tmp_path):
    content, pixels, labels = archive(name)
    server = serve(answering(content), name)
    cache = tmp_path / "not" / "yet" / "there"
    assert not cached(name, cache)
    for _ in range(2):
        source = open_source(name, cache)
        assert (source.spec, source.classes, source.native_size, source.flips) == (name, CLASSES, 32, True)
        assert np.array_equal(np.concatenate([source.train.pixels, source.held_out.pixels]), pixels)
        assert np.array_equal(np.concatenate([source.train.labels, source.held_out.labels]), labels)
        assert len(source.held_out.labels) == 6
        assert cached(name, cache)
    assert server.requests == 1
    assert not list(cache.rglob("*.part"))


def test_auto_downloads_cifar10_and_finds_it_the_second_time(archive, serve, tmp_path):
    server = serve(answering(archive("cifar10")[0]))
    first, second = (open_source("auto", tmp_path) for _ in range(2))
    assert first.spec == second.spec == "cifar10"
    assert first.note == f"auto chose cifar10, downloaded in {tmp_path}"
    assert second.note == f"auto chose cifar10, found in {tmp_path}"
    assert first.fingerprint() == second.fingerprint()
    assert server.requests == 1


def test_a_wrong_checksum_is_refused_and_the_download_deleted(archive, serve, monkeypatch, tmp_path):
    server = serve(answering(archive("cifar10")[0]))
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(InputError, match="cifar10"):
        open_source("cifar10", tmp_path)
    assert not list(tmp_path.iterdir())
    assert server.requests == 1  # not again, past every deadline


def test_a_damaged_data_set_is_refused_and_the_folder_to_delete_named(archive, serve, tmp_path):
    serve(answering(archive("cifar10")[0]))
    open_source("cifar10", tmp_path)
    folder = tmp_path / CIFAR10.base_folder
    (folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged") as caught:
        open_source("cifar10", tmp_path)
    assert f"delete {folder}" in str(caught.value)
    assert open_source("auto", tmp_path).spec == "digits"


def test_auto_without_a_network_chooses_the_digits_and_says_why(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    source = open_source("auto", tmp_path)
    assert source.spec == "digits"
    assert source.note.startswith("auto chose digits: cifar10 is not in ")
    assert "no route to host" in source.note
    assert "\n" not in source.note
    assert source.fingerprint() == open_source("digits", tmp_path).fingerprint()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "answer",
    [
        answering(b"<html>Please log in</html>"),
        answering(b"gone", status=404),
        answering(b"only half", Content_Length=1000),
        answering(b"any", Content_Length="many"),
        answering(b"5\r\nabcde\r\nzz\r\n", Transfer_Encoding="chunked"),
        babbling,
    ],
    ids=["login page", "404", "cut short", "no length", "broken off", "not HTTP"],
)
def test_auto_chooses_the_digits_for_any_wrong_answer_of_the_server(answer, serve, tmp_path):
    serve(answer)
    source = open_source("auto", tmp_path)
    assert source.spec == "digits"
    assert "cannot be downloaded" in source.note
    assert not list(tmp_path.iterdir())


def test_a_slow_download_is_cancelled_in_time(serve, tmp_path):
    serve(dripping(seconds=6))
    start = time.monotonic()
    with pytest.raises(InputError, match="more than 1 s"):
        load_cifar("cifar10", tmp_path, seconds=1)
    assert time.monotonic() - start < 4
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_refused(archive, serve, tmp_path):
    serve(answering(archive("cifar10")[0]))
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cache"):
        open_source("cifar10", tmp_path / "cache")
