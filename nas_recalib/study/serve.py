"""Optuna's gRPC proxy in front of a database."""

import errno
import socket
import warnings
from collections.abc import Callable

from optuna.exceptions import ExperimentalWarning
from optuna.storages import run_grpc_proxy_server

from nas_recalib.errors import InputError
from nas_recalib.study.passwords import hide_password
from nas_recalib.study.storage import connect, kind_of, storage_errors


def serve_storage(url: str, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serves a storage until interrupted.

    Args:
        url: Of a database; neither a journal, which the proxy does not know, nor another proxy.
        host: Address to listen on.
        port: To listen on.
        ready: Called once the storage has answered and the port is known to be free.

    Raises:
        InputError: If the storage cannot be used, or the port cannot be had.
    """
    if kind_of(url) in ("journal", "grpc"):
        raise InputError("storage: a database can be served, such as postgresql://USER@HOST/NAME")
    try:
        import grpc  # noqa: F401
    except ImportError:
        raise InputError("storage: gRPC is not installed: pip install 'nas-recalib[grpc]'") from None
    _refuse_taken(host, port)
    with storage_errors(url, hide_password(url)):
        storage = connect(url)
    ready()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        run_grpc_proxy_server(storage, host=f"[{host}]" if ":" in host else host, port=port)


def _refuse_taken(host: str, port: int) -> None:
    """GRPC itself would share the port with whoever has it, and each get some of the calls."""
    host = host.strip("[]")
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
    except OSError as error:
        told = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
        raise InputError(f"port: {host}:{port} {told}") from None
