"""Shared by all tests: seeded inputs and modules, a database server, profiles of Hypothesis."""

import fcntl
import signal
import sys
import threading

import pytest
import torch
from hypothesis import settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.operators import catalog
from nas_recalib.plugins import load_installed

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's jobs in the background ignore
torch.set_num_threads(1)  # on tensors this small, threads only wait for each other

# By default the same few examples in every run; under `-m soak` ten times as many, others in every run.
settings.register_profile("default", deadline=None, derandomize=True, database=None, max_examples=10)
settings.register_profile("soak", deadline=None, max_examples=100)
settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "soak":
        settings.load_profile("soak")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select the property tests under `-m soak`, too, where they run with all their examples."""
    if config.option.markexpr == "soak":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("soak")


@pytest.fixture
def normal():
    """Draws normal tensors from a generator that starts anew in every test."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=dtype)

    return draw


@pytest.fixture
def make():
    """Builds a module in evaluation mode whose weights follow from a seed and whose norms do something."""

    def construct(build, *args, dtype=torch.float64, **kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = build(*args, **kwargs)
            for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
                nn.init.normal_(norm.running_mean, std=0.2)
                nn.init.uniform_(norm.running_var, 0.5, 2)
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, std=0.5)
        return module.to(dtype).eval()

    return construct


@pytest.fixture
def count():
    """Counts a module on the meta device, which `build` gives, by running it whole: (MACs, parameters)."""

    def directly(build, *shape):
        with torch.device("meta"):
            module = build().eval()
        with FlopCounterMode(display=False) as counter:
            module(torch.empty(1, *shape, device="meta"))
        return counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters())

    return directly


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL that the tests of this process share; a module that stops it has one of its own."""
    from postgres import postgres

    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def database(server, request):
    """The URL of a database on it that the tests of the module share."""
    return server.new(f"studies_{request.module.__name__}")


@pytest.fixture(scope="module")
def alone_with_ray(tmp_path_factory, request):
    """Lets one module of the whole run start Ray at a time, since each actor imports torch for seconds."""
    base = tmp_path_factory.getbasetemp()
    run = base.parent if hasattr(request.config, "workerinput") else base
    with (run / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def forget(tmp_path, monkeypatch):
    """Takes back, when called and after the test, what plugins under tmp_path changed in this process."""
    operators, path = dict(catalog._operators), list(sys.path)

    def restore():
        monkeypatch.setattr(catalog, "_operators", dict(operators))
        monkeypatch.setattr(sys, "path", list(path))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
                del sys.modules[name]
        catalog.parse_part.cache_clear()
        load_installed.cache_clear()

    restore()
    yield restore
    restore()
