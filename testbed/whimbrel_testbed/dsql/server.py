"""Starting and stopping the stand-in: the real PostgreSQL behind it, its certificate, its key pair and its process."""

from __future__ import annotations

import functools
import secrets
import shutil
import string
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import botocore.session

from whimbrel_testbed.certificates import make_authority
from whimbrel_testbed.dsql.control import Control
from whimbrel_testbed.dsql.dials import Dials
from whimbrel_testbed.dsql.signin import ADMIN
from whimbrel_testbed.postgres import postgres_server
from whimbrel_testbed.processes import HOST, LOOPBACK
from whimbrel_testbed.serve import serve as serve_command
from whimbrel_testbed.standins import standin_process

ENDPOINT = "localhost" if HOST == LOOPBACK else HOST
DATABASE = "postgres"
_MAJOR = 16  # the version Aurora DSQL is compatible with
_BACKEND_SETTINGS = {"max_connections": "300", "max_locks_per_transaction": "256"}


@dataclass(frozen=True)
class DSQLServer:
    """A running stand-in: what a client needs, its control, and `backend_conninfo`, the way around it."""

    endpoint: str
    port: int
    region: str
    database: str
    user: str
    access_key_id: str
    ca_file: str
    control: Control
    secret_access_key: str = field(repr=False)
    backend_conninfo: str = field(repr=False)

    def token(self, expires_in: int = 900, *, user: str = ADMIN, host: str = ENDPOINT) -> str:
        """Mint an IAM token as boto3's `dsql` client does; `expires_in` in seconds."""
        client = _signer(self.region, self.access_key_id, self.secret_access_key)
        mint = client.generate_db_connect_admin_auth_token if user == ADMIN else client.generate_db_connect_auth_token
        return str(mint(host, self.region, expires_in))

    def conninfo(self, negotiation: Literal["postgres", "direct"] = "postgres") -> dict[str, Any]:
        """Return keyword arguments for psycopg.connect, with a fresh token and full verification."""
        return {
            "host": self.endpoint, "port": self.port, "user": self.user, "password": self.token(),
            "dbname": self.database, "hostaddr": HOST,
            "sslmode": "verify-full", "sslrootcert": self.ca_file, "sslnegotiation": negotiation,
        }  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Return all that a client needs, secrets included, as the command line prints it."""
        return {
            "kind": "dsql", "endpoint": self.endpoint, "host": self.endpoint, "port": self.port, "region": self.region,
            "database": self.database, "user": self.user, "token": self.token(), "accessKeyId": self.access_key_id,
            "secretAccessKey": self.secret_access_key, "caFile": self.ca_file, "control": self.control.path,
            "backend": self.backend_conninfo,
        }  # fmt: skip


@functools.lru_cache(maxsize=8)
def _signer(region: str, access_key_id: str, secret_access_key: str) -> Any:
    return botocore.session.Session().create_client(
        "dsql", region_name=region, aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key
    )


@contextmanager
def dsql_server(*, dials: Dials | None = None, region: str = "us-east-1") -> Iterator[DSQLServer]:
    """Run a stand-in with a real PostgreSQL of its own until the context ends; then nothing of it is left.

    The proxy runs in a child process. Raises TestbedError where one of them does not start.
    """
    directory = Path(tempfile.mkdtemp(prefix="whimbrel-dsql-"))
    try:
        with postgres_server(settings=_BACKEND_SETTINGS, major=_MAJOR) as postgres:
            authority = make_authority(directory)
            certificate, key = authority.server_certificate()
            gate = {"host": ENDPOINT, "region": region, "access_key_id": _access_key_id()}
            gate["secret_access_key"] = secrets.token_urlsafe(30)
            backend = {
                "host": postgres.host,
                "port": postgres.port,
                "user": postgres.user,
                "password": postgres.password,
            }
            settings = {
                "backend": {**backend, "database": DATABASE}, "dials": (dials or Dials()).as_json(), "gate": gate,
                "certificate": str(certificate), "key": str(key), "control": str(directory / "control"),
                "directory": str(directory),
            }  # fmt: skip
            with standin_process("whimbrel_testbed.dsql.proxy", "the DSQL stand-in", settings) as port:
                yield DSQLServer(
                    ENDPOINT, port, region, DATABASE, ADMIN, gate["access_key_id"], str(authority.ca_file),
                    Control(directory / "control"), gate["secret_access_key"], postgres.conninfo,
                )  # fmt: skip
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _access_key_id() -> str:
    return "AKIA" + "".join(secrets.choice(string.ascii_uppercase + "234567") for _ in range(16))


def serve(*, dials: Dials | None = None, region: str = "us-east-1") -> None:
    """Run a stand-in for the command line: one line of JSON, until interrupted; nothing of it is left behind."""
    serve_command(_facts(dials, region))


@contextmanager
def _facts(dials: Dials | None, region: str) -> Iterator[Mapping[str, object]]:
    with dsql_server(dials=dials, region=region) as server:
        yield server.as_json()
