"""Where data comes from and goes to: sources and targets as a manifest describes them. No connection is made here."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from whimbrel_api.base import Glob, Host, Identifier, Model, Port, Region, SecretRef, Tls

Url = Annotated[
    str,
    Field(
        max_length=300,
        pattern=r"^https?://[^\s/@?#]+$",
        description="An address such as https://dynamodb.us-east-1.amazonaws.com, without a path.",
    ),
]
RoleArn = Annotated[
    str,
    Field(
        max_length=2048,
        pattern=r"^arn:[a-z-]+:iam::[0-9]{12}:role/\S+$",
        description="The ARN of a role, such as arn:aws:iam::123456789012:role/mover.",
    ),
]


class MySQLSource(Model):
    """A MySQL server. The Secret holds `username` and `password`."""

    host: Host = Field(description="Where the server is reached.")
    port: Port = Field(default=3306, description="The server's port.")
    credentials_secret_ref: SecretRef = Field(description="The Secret with `username` and `password`.")
    tls: Tls = Tls()


class PolarDBSource(Model):
    """A PolarDB for PostgreSQL server whose log is read on the way back. The Secret holds `username` and `password`."""

    host: Host = Field(description="Where the primary is reached; a slot lives on it.")
    port: Port = Field(default=5432, description="The server's port.")
    database: Identifier = Field(
        default="polardb_internal_dynamodb", description="The database in which the items' tables stand."
    )
    credentials_secret_ref: SecretRef = Field(description="The Secret with `username` and `password`.")
    tls: Tls = Tls()


class AuroraDSQLTarget(Model):
    """An Aurora DSQL cluster. The Secret holds `accessKeyId`, `secretAccessKey` and, where needed, `sessionToken`.

    Without a Secret the process's own AWS identity is used.
    """

    endpoint: Host = Field(description="The cluster's endpoint, such as abc.dsql.us-east-1.on.aws.")
    port: Port = Field(default=5432, description="The endpoint's port.")
    region: Region = Field(description="The cluster's region, such as us-east-1; the one in the endpoint's name.")
    database: Identifier = Field(default="postgres", description="The database that the tables go to.")
    user: Identifier = Field(default="admin", description="The database role that is signed in as.")
    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description="With `accessKeyId`, `secretAccessKey`, `sessionToken`; without it the pod's own AWS identity.",
    )
    tls: Tls = Tls()


class PostgreSQLTarget(Model):
    """A plain PostgreSQL server. The Secret holds `username` and `password`."""

    host: Host = Field(description="Where the server is reached.")
    port: Port = Field(default=5432, description="The server's port.")
    database: Identifier = Field(description="The database that the tables go to.")
    credentials_secret_ref: SecretRef = Field(description="The Secret with `username` and `password`.")
    tls: Tls = Tls()


KinesisStreamName = Annotated[
    str,
    Field(
        max_length=400,
        pattern=r"^(arn:[a-z-]+:kinesis:[a-z0-9-]+:[0-9]{12}:stream/)?[a-zA-Z0-9_.-]{1,128}$",
        description="A Kinesis data stream by its name, or by its ARN where a table has two destinations of that name.",
    ),
]


class KinesisStream(Model):
    """The tables whose changes are read from one Kinesis data stream. Several tables may share a stream."""

    tables: list[Glob] = Field(min_length=1, max_length=100, description="Tables by name or pattern.")
    stream: KinesisStreamName


class DynamoDBSource(Model):
    """Amazon DynamoDB, its tables and their streams. The Secret holds `accessKeyId`, `secretAccessKey`, `sessionToken`.

    The session token may be missing. Without a Secret the process's own AWS identity is used; with `roleArn` that role
    is assumed by whichever of the two. A table that `kinesisStreams` names is followed by that stream, by the first
    entry that fits, all others by DynamoDB Streams.
    """

    region: Region = Field(description="The tables' region, such as us-east-1.")
    endpoint: Url | None = Field(
        default=None, description="Another endpoint than AWS's own of that region, such as http://10.0.0.5:8000."
    )
    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description="With `accessKeyId`, `secretAccessKey`, `sessionToken`; without it the pod's own AWS identity.",
    )
    role_arn: RoleArn | None = Field(default=None, description="The role that is assumed with these keys.")
    kinesis_streams: list[KinesisStream] = Field(
        default=[],
        max_length=100,
        description="Kinesis data streams as the change log of tables; each must be the table's destination already.",
    )
    tls: Tls = Tls()


class Dialect(StrEnum):
    """Whose DynamoDB it is; what differs stands in the worker's endpoints."""

    POLARDB = "PolarDB"
    AWS = "AWS"


class DynamoDBTarget(Model):
    """A DynamoDB-compatible endpoint, such as PolarDB's: there an account's name and password are the keys.

    The Secret holds `accessKeyId` and `secretAccessKey`. DynamoDB itself (`dialect: AWS`) needs neither endpoint nor
    Secret: without a Secret the process's own AWS identity is used; with `roleArn` that role is assumed. With
    `fencedWrites` every write is a transaction that checks the worker's own control row; slower, and only where the
    endpoint takes TransactWriteItems.
    """

    endpoint: Url | None = Field(
        default=None,
        description="The endpoint, such as http://pc-abc.pg.polardb.rds.aliyuncs.com:5432; needed for PolarDB.",
    )
    region: Region = Field(default="us-east-1", description="The region that requests are signed for.")
    dialect: Dialect = Field(
        default=Dialect.POLARDB, description="Whose endpoint it is: PolarDB's, or DynamoDB itself."
    )
    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description="The Secret with `accessKeyId` and `secretAccessKey`, for PolarDB an account and its password.",
    )
    role_arn: RoleArn | None = Field(default=None, description="The role that is assumed with these keys; AWS only.")
    fenced_writes: bool = Field(default=False, description="Whether each write checks the epoch in its transaction.")
    tls: Tls = Tls()


def _only(model: BaseModel, what: str) -> str:
    """The alias of the one kind that is given. Raises ValueError for none and for more than one."""
    kinds = {name: info.alias or name for name, info in type(model).model_fields.items()}
    given = [alias for name, alias in kinds.items() if getattr(model, name) is not None]
    if len(given) != 1:
        *others, last = kinds.values()
        raise ValueError(f"name exactly one {what}: {', '.join(others)} or {last}")
    return given[0]


class Source(Model):
    """Exactly one kind of source. PolarDB's log is read by a ReverseSync only."""

    mysql: MySQLSource | None = None
    dynamodb: DynamoDBSource | None = None
    polardb: PolarDBSource | None = None

    @property
    def kind(self) -> str:
        """Which kind it is, as manifests name it."""
        return _only(self, "source")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        _only(self, "source")
        return self


class Target(Model):
    """Exactly one kind of target."""

    aurora_dsql: AuroraDSQLTarget | None = Field(default=None, alias="auroraDSQL")
    postgresql: PostgreSQLTarget | None = None
    dynamodb: DynamoDBTarget | None = None

    @property
    def kind(self) -> str:
        """Which kind it is, as manifests name it."""
        return _only(self, "target")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        _only(self, "target")
        return self
