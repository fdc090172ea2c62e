"""A real PostgreSQL server on loopback, with a generated SCRAM password; the build that is used has no TLS."""

from __future__ import annotations

import functools
import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from whimbrel_testbed import cache
from whimbrel_testbed.cache import TestbedError, announce, run
from whimbrel_testbed.processes import HOST, LOOPBACK, Child, Served, free_port
from whimbrel_testbed.provision import postgres_bin, postgres_version, unprivileged_account

SUPERUSER = "postgres"
_START_ATTEMPTS = 3
_SETTINGS = {
    "listen_addresses": HOST, "unix_socket_directories": "", "fsync": "off", "synchronous_commit": "off",
    "full_page_writes": "off", "wal_level": "logical", "max_connections": "100", "shared_buffers": "128MB",
    "max_wal_size": "2GB", "timezone": "UTC", "log_timezone": "UTC", "dynamic_shared_memory_type": "mmap",
}  # fmt: skip


@dataclass
class PostgresServer(Served):
    """A running PostgreSQL server; `user` is its superuser."""

    host: str
    port: int
    user: str
    version: str
    password: str = field(repr=False)
    _child: Child = field(repr=False)
    _command: list[str] = field(repr=False)

    @property
    def conninfo(self) -> str:
        """The libpq connection string for the database `postgres`, password included: never log it."""
        return self.conninfo_for("postgres")

    def conninfo_for(self, database: str) -> str:
        """Return the libpq connection string for a database, password included: never log it."""
        return make_conninfo(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=database, sslmode="disable"
        )

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection as the superuser (autocommit unless told otherwise); `options` go to psycopg.connect."""
        return psycopg.connect(self.conninfo_for(database), **{"autocommit": True, **options})

    def stop(self) -> None:
        """Shut down without waiting for clients (fast shutdown); the data stays until the context ends."""
        self._child.stop(signal.SIGINT)

    def kill(self) -> None:
        """End at once, as a crash would (immediate shutdown: with fsync off, nothing is promised about the disk)."""
        self._child.stop(signal.SIGQUIT)

    def start(self) -> None:
        """Start again on the same port and data."""
        self._child.start(self._command, lambda: _answers(self.conninfo))


@contextmanager
def postgres_server(*, settings: Mapping[str, str] | None = None, major: int = 18) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server of one's own until the context ends; then its process and directory are gone.

    `settings` are server settings such as ``{"max_connections": "20"}``; `major` is 18 or 16. Run by root, the
    server belongs to `nobody`, as PostgreSQL refuses root.
    """
    template = _template(major)
    child = Child("postgres", unprivileged_account(), signal.SIGQUIT)
    try:
        cache.copy_tree(template / "data", child.directory / "data")
        _let_in(child.directory / "data" / "pg_hba.conf")
        options = [part for item in {**_SETTINGS, **(settings or {})}.items() for part in ("-c", "=".join(item))]
        command = [str(postgres_bin(major) / "postgres"), "-D", str(child.directory / "data"), *options]
        yield _start(child, command, (template / "password").read_text(), postgres_version(major))
    finally:
        child.close()


def _let_in(rules: Path) -> None:
    """Let clients from everywhere sign in where the server listens beyond loopback, which is all that initdb allows."""
    if HOST != LOOPBACK:
        with rules.open("a", encoding="utf-8") as file:
            file.write("host all all all scram-sha-256\nhost replication all all scram-sha-256\n")


def _start(child: Child, command: list[str], first_password: str, version: str) -> PostgresServer:
    for attempt in range(_START_ATTEMPTS):
        port = free_port()
        whole = [*command, "-p", str(port)]
        server = PostgresServer(HOST, port, SUPERUSER, version, first_password, child, whole)
        try:
            server.start()
        except TestbedError as error:
            if "Address already in use" not in str(error) or attempt == _START_ATTEMPTS - 1:
                raise
            continue
        break
    server.password = _new_password(server)
    return server


def _new_password(server: PostgresServer) -> str:
    """Give the superuser a password of this server alone; only its SCRAM verifier is sent, so no log can hold it."""
    password = secrets.token_urlsafe(24)
    with server.connect() as connection:
        verifier = connection.pgconn.encrypt_password(password.encode(), SUPERUSER.encode(), b"scram-sha-256").decode()
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(SUPERUSER), sql.Literal(verifier))
        connection.execute(statement)
    return password


def _answers(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _template(major: int) -> Path:
    """A directory with an initialised `data` and the `password` of its superuser; made once."""
    version = postgres_version(major)
    return cache.entry(f"postgres-data-{version}", functools.partial(_initialise, major))


def _initialise(major: int, directory: Path) -> None:
    announce(f"initialising PostgreSQL {postgres_version(major)}'s data directory (once)")
    account = unprivileged_account()
    password, data = directory / "password", directory / "data"
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24))
    data.mkdir(mode=0o700)
    if account is not None:
        for path in (password, data):
            os.chown(path, account.uid, account.gid)
    command = [
        str(postgres_bin(major) / "initdb"), "-D", str(data), "--username", SUPERUSER, "--pwfile", str(password),
        "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
    ]  # fmt: skip
    run(command, what="Initialising PostgreSQL", timeout=120, account=account)
