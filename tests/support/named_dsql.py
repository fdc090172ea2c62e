"""The Aurora DSQL cluster that the environment names: its address, its tokens, how a Migration speaks of it.

What is made there and removed stands in lent_dsql. Nothing secret is printed or written outside the folder given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import boto3
import psycopg
from botocore.exceptions import BotoCoreError
from psycopg.conninfo import make_conninfo

from whimbrel_worker.trust import system_authorities

ENDPOINT, REGION = "WHIMBREL_AWS_DSQL_ENDPOINT", "WHIMBREL_AWS_REGION"
USER, DATABASE = "WHIMBREL_AWS_DSQL_USER", "WHIMBREL_AWS_DSQL_DATABASE"
PORT, CA_FILE = "WHIMBREL_AWS_DSQL_PORT", "WHIMBREL_AWS_DSQL_CA_FILE"
GUIDE = "docs/testing-aws.md"
ADMIN = "admin"
SECRET = "dsql"
TOKEN_SECONDS = 900
_NAME = re.compile(r"^[a-z0-9]+\.dsql(?:-[a-z0-9]+)?\.([a-z0-9-]+)\.on\.aws$")
"""The names of public and of PrivateLink endpoints (Aurora DSQL user guide, "Connecting" and "AWS PrivateLink")."""


class NotNamed(Exception):
    """The environment names no cluster; str() says in one line which variables would."""


class WronglyNamed(Exception):
    """The environment names a cluster by half, or wrongly."""


@dataclass(frozen=True)
class Keys:
    """An AWS key pair, with a session token where the identity is a temporary one."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class NamedDSQL:
    """One cluster. Without `keys` the identity is the one that boto3 finds by itself: environment, profile, role."""

    endpoint: str
    region: str
    port: int = 5432
    database: str = "postgres"
    user: str = ADMIN
    ca_file: str = ""
    keys: Keys | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """The cluster named by WHIMBREL_AWS_*. Raises NotNamed without an endpoint, WronglyNamed for what cannot be."""
        told = {name: environ.get(name, "").strip() for name in (ENDPOINT, REGION, USER, DATABASE, PORT, CA_FILE)}
        if not told[ENDPOINT]:
            raise NotNamed(
                f"test-aws skipped: {ENDPOINT} is not set; set it to <id>.dsql.<region>.on.aws, and AWS_PROFILE or "
                f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; see {GUIDE}"
            )
        if re.search(r"[\s/@:]", told[ENDPOINT]):
            raise WronglyNamed(f"{ENDPOINT} must be a host name alone, such as <id>.dsql.us-east-1.on.aws")
        if told[CA_FILE] and not Path(told[CA_FILE]).is_file():
            raise WronglyNamed(f"{CA_FILE}={told[CA_FILE]}: there is no such file")
        if not (told[PORT] or "5432").isdigit():
            raise WronglyNamed(f"{PORT}={told[PORT]}: a port is a number")
        return cls(
            told[ENDPOINT], told[REGION] or region_of(told[ENDPOINT]), int(told[PORT] or 5432),
            told[DATABASE] or "postgres", told[USER] or ADMIN, told[CA_FILE],
        )  # fmt: skip

    def token(self, *, action: str = "", expires_in: int = TOKEN_SECONDS, host: str = "") -> str:
        """A fresh token, for the user's own action unless told otherwise. Raises WronglyNamed without an identity."""
        try:
            client = _client(self.region, self.keys)
            admin = (action or self._action) == "DbConnectAdmin"
            mint = client.generate_db_connect_admin_auth_token if admin else client.generate_db_connect_auth_token
            return str(mint(host or self.endpoint, self.region, expires_in))
        except BotoCoreError as error:
            raise WronglyNamed(f"no AWS identity to make a token with ({type(error).__name__}); see {GUIDE}") from None

    @property
    def _action(self) -> str:
        return "DbConnectAdmin" if self.user == ADMIN else "DbConnect"

    def conninfo(self, **changes: Any) -> str:
        """A connection string with a fresh token and full verification: a secret. `changes` are libpq's words."""
        usual = {
            "host": self.endpoint, "port": self.port, "dbname": self.database, "user": self.user,
            "sslmode": "verify-full", "sslrootcert": self.ca_file or system_authorities(), "connect_timeout": 20,
        }  # fmt: skip
        return make_conninfo(
            "", **{**usual, **({} if "password" in changes else {"password": self.token()}), **changes}
        )

    def connect(self, **changes: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection in autocommit. An error comes without its frames, because their arguments hold the token."""
        try:
            return psycopg.connect(self.conninfo(**changes), autocommit=True)
        except psycopg.Error as error:
            raise error.with_traceback(None) from None

    def target(self, *, own_identity: bool) -> dict[str, Any]:
        """`spec.target`: with the process's own AWS identity, or with the Secret that `give_secret` makes."""
        spec: dict[str, Any] = {
            "endpoint": self.endpoint, "port": self.port, "region": self.region, "database": self.database,
            "user": self.user,
        }  # fmt: skip
        if not own_identity:
            spec["credentialsSecretRef"] = {"name": SECRET}
        if self.ca_file:
            spec["tls"] = {"mode": "VerifyFull", "caSecretRef": {"name": SECRET, "key": "ca.crt"}}
        return {"auroraDSQL": spec}

    def give_secret(self, folder: Path, *, own_identity: bool) -> dict[str, str]:
        """Write the Secret as files; returns Secret names with their folders. Nothing is written that is not needed."""
        files = {} if own_identity else self._key_files()
        if self.ca_file:
            files["ca.crt"] = Path(self.ca_file).read_text()
        if not files:
            return {}
        folder.mkdir(mode=0o700, parents=True)
        for name, content in files.items():
            (folder / name).write_text(content)
        return {SECRET: str(folder)}

    def _key_files(self) -> dict[str, str]:
        keys = self.keys or _found_keys()
        told = {
            "accessKeyId": keys.access_key_id,
            "secretAccessKey": keys.secret_access_key,
            "sessionToken": keys.session_token,
        }
        return {name: value for name, value in told.items() if value}


def region_of(endpoint: str) -> str:
    """The region in an endpoint's name. Raises WronglyNamed where there is none."""
    found = _NAME.match(endpoint)
    if found is None:
        raise WronglyNamed(f"{ENDPOINT}={endpoint} does not tell its region: set {REGION}, for example to us-east-1")
    return found[1]


def _found_keys() -> Keys:
    found = boto3.Session().get_credentials()
    if found is None:
        raise WronglyNamed(f"no AWS identity is found; see {GUIDE}")
    return Keys(*(part or "" for part in found.get_frozen_credentials()[:3]))


@lru_cache(maxsize=4)
def _client(region: str, keys: Keys | None) -> Any:
    given = keys and {
        "aws_access_key_id": keys.access_key_id,
        "aws_secret_access_key": keys.secret_access_key,
        "aws_session_token": keys.session_token or None,
    }
    return boto3.client("dsql", region_name=region, **(given or {}))
