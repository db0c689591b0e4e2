"""Connection to a Ray cluster, and the resources each training takes of a node."""

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

_LEAST_SHARE = 0.0001  # that Ray keeps the books of


@dataclass(frozen=True)
class Resources:
    """What each training gets of its node.

    Attributes:
        cpus: Cores.
        gpus: GPUs, or a share of one; Ray keeps the books of shares, but nothing enforces them.

    Raises:
        ValueError: If a number is out of range.
    """

    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"cpus: {self.cpus} is not at least 1")
        if not (_LEAST_SHARE <= self.gpus <= 1 or (self.gpus >= 0 and self.gpus % 1 == 0)):
            least = f"a share of a GPU from {_LEAST_SHARE} to 1"
            raise ValueError(f"gpus: {self.gpus:g} is neither {least} nor a whole number")

    def places(self) -> int:
        """How many trainings the cluster's nodes have room for at once."""
        return sum(self._fit(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def require(self) -> None:
        """Raises InputError if no node of the cluster has them."""
        if not self.places():
            wanted = f"{self.cpus} CPUs and {self.gpus:g} GPUs"
            raise InputError(f"resources: no node of the cluster has {wanted}")

    def _fit(self, node: dict[str, float]) -> int:
        fit = int(node.get("CPU", 0) // self.cpus)
        if not self.gpus:
            return fit
        gpus = int(node.get("GPU", 0))
        return min(fit, gpus * int(1 / self.gpus + 1e-6) if self.gpus <= 1 else int(gpus // self.gpus))


# Ray would tell all of the cluster this process's command line, which may hold a storage's password.
utils.get_entrypoint_name = lambda: "nas-recalib"


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Has variables of the environment inside, and those from before after."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Has Ray at hand inside: a cluster of one's own, or one that is there already.

    This package and the user's plugins must be importable on every node, in the same versions, and the
    checkpoints' folder must be one that all of them see. A process that is connected already stays so.

    Args:
        address: local starts Ray on this machine, for this process alone; auto takes the cluster of
            RAY_ADDRESS or the one that runs on this machine; HOST:PORT one of which this machine is a node.

    Raises:
        InputError: If there is no such cluster, or it cannot be used.
    """
    if ray.is_initialized():
        yield
        return
    given = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if given not in ("auto", "local"):
        _reach(given)
    with _own_cluster() if address == "local" else nullcontext():
        try:
            _join(address)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _own_cluster() -> Iterator[None]:
    """Has a cluster that is started inside talk to none but those who know its token, which no file holds."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        with environment({**token, "RAY_USAGE_STATS_ENABLED": "0"}):
            _read_authentication()
            yield
    finally:
        _read_authentication()


def _read_authentication() -> None:
    """Has Ray see what it else reads once in a process."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _reach(address: str) -> None:
    """Refuses at once where Ray would try for minutes."""
    if "://" in address:
        raise InputError(
            f"address: {address} speaks Ray's client protocol, which would have the search run elsewhere; "
            "start it on a node of the cluster, with auto or HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"address: {address!r} is not local, auto or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"address: nothing answers at {address}: {in_one_line(error)}") from error


def _join(address: str) -> None:
    local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        with _same_end():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"address: no Ray cluster ({address}): {in_one_line(error)}") from error


@contextmanager
def _same_end() -> Iterator[None]:
    """Has SIGTERM do after what it did before; of Ray's own accord it ends the process on the spot."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)
