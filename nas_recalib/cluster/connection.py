"""Connection to a Ray cluster, and the resources of a node that each training takes."""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import utils
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import RayError

from nas_recalib.errors import InputError, in_one_line

_LEAST_SHARE = 0.0001  # least share of a GPU that Ray accounts for


@dataclass(frozen=True)
class Resources:
    """Resources of a node that each training takes.

    Attributes:
        cpus: Number of CPU cores.
        gpus: Number of GPUs, or a share of one; Ray accounts for shares, but nothing enforces them.

    Raises:
        ValueError: If a number is out of range.
    """

    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"cpus: {self.cpus} is not at least 1")
        if not (_LEAST_SHARE <= self.gpus <= 1 or (self.gpus >= 0 and self.gpus % 1 == 0)):
            share = f"a share of a GPU from {_LEAST_SHARE} to 1"
            raise ValueError(f"gpus: {self.gpus:g} is neither {share} nor a whole number")

    def slots(self) -> int:
        """Return how many trainings fit on the cluster's nodes at once."""
        return sum(self._slots_of(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def require(self) -> None:
        """Check that a node of the cluster has the resources.

        Raises:
            InputError: If none has.
        """
        if not self.slots():
            raise InputError(f"resources: no node of the cluster has {self.cpus} CPUs and {self.gpus:g} GPUs")

    def _slots_of(self, node: dict[str, float]) -> int:
        slots = int(node.get("CPU", 0) // self.cpus)
        if not self.gpus:
            return slots
        gpus = int(node.get("GPU", 0))
        return min(slots, gpus * int(1 / self.gpus + 1e-6) if self.gpus <= 1 else int(gpus // self.gpus))


# Ray shows a process's command line to the whole cluster, and it may hold the password of a storage.
utils.get_entrypoint_name = lambda: "nas-recalib"


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside the context, and restore their earlier values after it."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Connect to a Ray cluster inside the context; a connection that exists already is used and kept.

    This package and the user's plugins must be importable on every node, in the same versions, and all nodes
    must reach the folder of the checkpoints.

    Args:
        address: `local` to start Ray on this machine for this process alone; `auto` for the cluster of
            RAY_ADDRESS or the one that runs on this machine; HOST:PORT for one with this machine as a node.

    Raises:
        InputError: If there is no such cluster, or it cannot be used.
    """
    if ray.is_initialized():
        yield
        return
    resolved = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if resolved not in ("auto", "local"):
        _check_reachable(resolved)
    with _private_cluster() if address == "local" else nullcontext():
        try:
            _init(address)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _private_cluster() -> Iterator[None]:
    """Let a cluster that starts inside the context require a random token, which is written to no file."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        with environment({**token, "RAY_USAGE_STATS_ENABLED": "0"}):
            _reload_authentication()
            yield
    finally:
        _reload_authentication()


def _reload_authentication() -> None:
    """Make Ray read the token again, which it otherwise reads once in a process."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _check_reachable(address: str) -> None:
    """Raise InputError at once for an address that Ray would try for minutes."""
    if "://" in address:
        raise InputError(
            f"address: {address} uses Ray's client protocol, which is not supported; start the search on a "
            "node of the cluster, with --ray auto or --ray HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"address: {address!r} is not local, auto or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"address: nothing answers at {address}: {in_one_line(error)}") from error


def _init(address: str) -> None:
    local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"address: cannot connect to Ray at {address}: {in_one_line(error)}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own exits at once
