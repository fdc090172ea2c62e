"""Starting and stopping the stand-in: the real PostgreSQL behind it, its accounts, its process and its control."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from psycopg import sql

from whimbrel_testbed.polardb.dials import CONTROL_PATH, Dials
from whimbrel_testbed.polardb.layout import DATABASE
from whimbrel_testbed.postgres import PostgresServer, postgres_server
from whimbrel_testbed.processes import HOST
from whimbrel_testbed.standins import standin_process

ACCOUNT = "whimbrel"
POWERLESS = "whimbrel_powerless"
REGION = "us-east-1"
_MAJOR = 16
# A logical slot sees what is flushed only, and a change has to be there as soon as its write is answered.
_SETTINGS = {"synchronous_commit": "on"}


@dataclass(frozen=True)
class Postgres:
    """Where the items really are; `user` is PostgreSQL's superuser."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)


class Control:
    """Turns dials and reads counters of a running stand-in, from any process; `url` stands in the JSON line."""

    def __init__(self, url: str) -> None:
        self.url = url

    def set(self, **dials: Any) -> None:
        """Turn dials (see dials.Dials); raises ValueError where one is unknown."""
        self._ask("dials", dials)

    def reset(self) -> None:
        """Turn all faults off."""
        self._ask("dials", Dials().as_json())

    def dials(self) -> dict[str, Any]:
        """Return all dials."""
        return self._ask("dials", {})

    def counters(self) -> dict[str, int]:
        """Return the calls by operation, those `throttled` and `refused`, and the reads that name `ConsistentRead`."""
        return self._ask("counters", {})

    def expire(self) -> int:
        """Delete the items whose TTL has passed now; return how many there were."""
        return int(self._ask("expire", {})["expired"])

    def _ask(self, what: str, request: dict[str, Any]) -> dict[str, Any]:
        asked = urllib.request.Request(self.url + what, data=json.dumps(request).encode())  # noqa: S310 -- http, ours
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None


@dataclass(frozen=True)
class PolarDBServer:
    """A running stand-in: what a client needs, the PostgreSQL behind it, and its control.

    `powerless_access_key_id` is an account that may sign in and do nothing. `backend` stops and starts PostgreSQL.
    """

    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    postgres: Postgres
    control: Control
    powerless_access_key_id: str
    powerless_secret_access_key: str = field(repr=False)
    backend: PostgresServer = field(repr=False)

    def facts(self) -> dict[str, Any]:
        """Return all that a client needs, secrets included, as the command line prints it."""
        return {
            "kind": "polardb", "endpoint": self.endpoint, "region": self.region, "accessKeyId": self.access_key_id,
            "secretAccessKey": self.secret_access_key, "powerlessAccessKeyId": self.powerless_access_key_id,
            "powerlessSecretAccessKey": self.powerless_secret_access_key, "control": self.control.url,
            "postgres": asdict(self.postgres),
        }  # fmt: skip


@contextmanager
def polardb_server(
    *, settings: Mapping[str, str] | None = None, major: int = _MAJOR, region: str = REGION
) -> Iterator[PolarDBServer]:
    """Run a stand-in with a real PostgreSQL of its own until the context ends; then nothing of it is left.

    `settings` and `major` are those of postgres_server (wal_level is logical). Raises TestbedError where it does not
    start.
    """
    with postgres_server(settings={**_SETTINGS, **(settings or {})}, major=major) as backend:
        with backend.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        passwords = {name: secrets.token_urlsafe(24) for name in (ACCOUNT, POWERLESS)}
        orders = {
            "conninfo": backend.conninfo_for(DATABASE), "region": region, "passwords": passwords,
            "powerless": [POWERLESS],
        }  # fmt: skip
        postgres = Postgres(backend.host, backend.port, DATABASE, backend.user, backend.password)
        with standin_process("whimbrel_testbed.polardb.process", "the PolarDB stand-in", orders) as port:
            endpoint = f"http://{HOST}:{port}"
            yield PolarDBServer(
                endpoint, region, ACCOUNT, passwords[ACCOUNT], postgres, Control(endpoint + CONTROL_PATH),
                POWERLESS, passwords[POWERLESS], backend,
            )  # fmt: skip
