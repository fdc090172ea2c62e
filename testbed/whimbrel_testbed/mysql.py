"""A real MySQL server on loopback, with verified TLS, an administrator and an account for the migration."""

from __future__ import annotations

import functools
import os
import random
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
from pymysql.connections import Connection

from whimbrel_testbed import cache
from whimbrel_testbed.cache import TestbedError, announce, run
from whimbrel_testbed.certificates import make_authority
from whimbrel_testbed.processes import HOST, Child, Served, free_port
from whimbrel_testbed.provision import mysql_binaries

ADMINISTRATOR = "admin"
MIGRATION_ACCOUNT = "whimbrel"
_START_ATTEMPTS = 3


@dataclass(frozen=True)
class MySQLAccess:
    """How one account signs in to one MySQL server; without `ca_file` the connection is not encrypted."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    ca_file: str | None = None

    def connect(self, database: str | None = None, **options: Any) -> Connection[Any]:
        """Open a PyMySQL connection (autocommit, utf8mb4), with verified TLS where `ca_file` is set.

        `options` go to pymysql.connect.
        """
        settings: dict[str, Any] = {"autocommit": True, "charset": "utf8mb4", "connect_timeout": 10, **options}
        if self.ca_file:
            settings |= {"ssl_ca": self.ca_file, "ssl_verify_cert": True, "ssl_verify_identity": True}
        return pymysql.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, database=database, **settings
        )


@dataclass
class MySQLServer(Served):
    """A running MySQL server: `admin` may do everything; `migration` may SELECT and read the binlog, no more."""

    admin: MySQLAccess
    migration: MySQLAccess
    ca_file: str
    version: str
    _child: Child = field(repr=False)
    _command: list[str] = field(repr=False)

    @property
    def host(self) -> str:
        """The loopback address."""
        return self.admin.host

    @property
    def port(self) -> int:
        """The TCP port; it stays the same over restarts."""
        return self.admin.port

    @property
    def user(self) -> str:
        """The administrator's name."""
        return self.admin.user

    @property
    def password(self) -> str:
        """The administrator's password."""
        return self.admin.password

    @property
    def data_directory(self) -> Path:
        """Where the server keeps its data and its binlog files (binlog.000001 and so on)."""
        return self._child.directory / "data"

    def connect(self, database: str | None = None, **options: Any) -> Connection[Any]:
        """Open a connection as the administrator (see :meth:`MySQLAccess.connect`)."""
        return self.admin.connect(database, **options)

    def stop(self) -> None:
        """Shut the server down cleanly; its data stays until the context ends."""
        self._child.stop()

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL); its data stays."""
        self._child.kill()

    def start(self) -> None:
        """Start the server again on the same port and data."""
        self._child.start(self._command, lambda: _answers(self.admin))


@contextmanager
def mysql_server(
    *, gtid: bool = True, log_bin: bool = True, binlog_format: str = "ROW", row_image: str = "FULL",
    buffer_pool: str = "128M", durable: bool = False, extra: Sequence[str] = (),
) -> Iterator[MySQLServer]:  # fmt: skip
    """Run a MySQL server of one's own until the context ends; then its process and directory are gone.

    `buffer_pool` is InnoDB's cache; `durable` flushes the logs at every commit, as a production server does; `extra`
    are further
    options of mysqld, such as ``--default-time-zone=+02:00``, and win over those made here.
    """
    binaries, template = mysql_binaries(), _template()
    replication = [f"--binlog-format={binlog_format}", f"--binlog-row-image={row_image}", "--binlog-row-metadata=FULL"]
    options = [
        *_engine_options(buffer_pool, durable),
        *(["--log-bin=binlog", *replication] if log_bin else ["--skip-log-bin"]),
        f"--gtid-mode={'ON' if gtid else 'OFF'}", f"--enforce-gtid-consistency={'ON' if gtid else 'OFF'}",
        f"--server-id={random.SystemRandom().randrange(1, 2**31)}",
        *extra,
    ]  # fmt: skip
    child = Child("mysql")
    try:
        cache.copy_tree(template, child.directory / "data")
        base = [*binaries.mysqld, "--no-defaults", *binaries.options, *_place_options(child.directory)]
        yield _start(child, [*base, *options], binaries.version)
    finally:
        child.close()


def _start(child: Child, command: list[str], version: str) -> MySQLServer:
    authority = make_authority(child.directory)
    certificate, key = authority.server_certificate()
    ca_file = str(authority.ca_file)
    admin_password, migration_password = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    first = child.directory / "accounts.sql"
    with os.fdopen(os.open(first, os.O_WRONLY | os.O_CREAT, 0o600), "w") as handle:
        handle.write("\n".join(_account_statements(admin_password, migration_password)))
    command = [*command, f"--ssl-ca={ca_file}", f"--ssl-cert={certificate}", f"--ssl-key={key}"]
    for attempt in range(_START_ATTEMPTS):
        port = free_port()
        admin = MySQLAccess(HOST, port, ADMINISTRATOR, admin_password, ca_file)
        migration = MySQLAccess(HOST, port, MIGRATION_ACCOUNT, migration_password, ca_file)
        server = MySQLServer(admin, migration, ca_file, version, child, [*command, f"--port={port}"])
        try:
            child.start([*command, f"--port={port}", f"--init-file={first}"], functools.partial(_answers, admin))
        except TestbedError as error:
            if "Address already in use" not in str(error) or attempt == _START_ATTEMPTS - 1:
                raise
            continue
        break
    first.unlink()
    return server


def _answers(access: MySQLAccess) -> bool:
    try:
        access.connect(connect_timeout=2).close()
    except pymysql.err.OperationalError:
        return False
    return True


def _account_statements(admin_password: str, migration_password: str) -> list[str]:
    """SQL for the first start, one statement a line; the passwords are made of letters, digits, - and _ only."""
    return [
        "SET SESSION sql_log_bin = 0;",
        f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{secrets.token_urlsafe(24)}' ACCOUNT LOCK;",
        f"CREATE USER '{ADMINISTRATOR}'@'%' IDENTIFIED BY '{admin_password}';",
        f"GRANT ALL ON *.* TO '{ADMINISTRATOR}'@'%' WITH GRANT OPTION;",
        f"CREATE USER '{MIGRATION_ACCOUNT}'@'%' IDENTIFIED BY '{migration_password}';",
        f"GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{MIGRATION_ACCOUNT}'@'%';",
        "",
    ]


def _engine_options(buffer_pool: str, durable: bool) -> list[str]:
    return [
        f"--bind-address={HOST}", "--skip-name-resolve", "--mysqlx=OFF", "--local-infile=ON",
        "--default-time-zone=+00:00",
        f"--innodb-buffer-pool-size={buffer_pool}", "--innodb-redo-log-capacity=512M", "--performance-schema=OFF",
        f"--innodb-flush-log-at-trx-commit={1 if durable else 2}", f"--sync-binlog={1 if durable else 0}",
        "--innodb-fast-shutdown=2", "--innodb-buffer-pool-dump-at-shutdown=OFF",
        "--innodb-buffer-pool-load-at-startup=OFF",
        "--max-allowed-packet=64M", "--secure-file-priv=NULL",
    ]  # fmt: skip


def _place_options(directory: Path) -> list[str]:
    """Options that keep every file of the server in its directory; the socket's name is short."""
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    account = ["--user=root"] if os.geteuid() == 0 else []
    return [
        *account, f"--datadir={directory / 'data'}", f"--tmpdir={temporary}", f"--socket={directory / 's'}",
        f"--pid-file={directory / 'pid'}", "--log-error-verbosity=2",
    ]  # fmt: skip


def _template() -> Path:
    """An initialised data directory, made once for a version and copied for each server."""
    version = mysql_binaries().version
    return cache.entry(f"mysql-data-{version}", lambda directory: _initialise(directory, version))


def _initialise(directory: Path, version: str) -> None:
    announce(f"initialising MySQL {version}'s data directory (once)")
    binaries = mysql_binaries()
    account = ["--user=root"] if os.geteuid() == 0 else []
    options = [
        "--initialize-insecure",
        "--auto-generate-certs=OFF",
        "--secure-file-priv=NULL",
        "--innodb-redo-log-capacity=8M",
        f"--datadir={directory}",
    ]
    command = [*binaries.mysqld, "--no-defaults", *binaries.options, *account, *options]
    run(command, what="Initialising MySQL", timeout=300)
    (directory / "auto.cnf").unlink(missing_ok=True)
    directory.chmod(0o700)
