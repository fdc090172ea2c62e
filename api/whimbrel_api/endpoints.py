"""Where data comes from and goes to: sources and targets as a manifest describes them. No connection is made here."""

from typing import Self

from pydantic import Field, model_validator

from whimbrel_api.base import Host, Identifier, Model, Port, Region, SecretRef, Tls


class MySQLSource(Model):
    """A MySQL server. The Secret holds `username` and `password`."""

    host: Host
    port: Port = 3306
    credentials_secret_ref: SecretRef
    tls: Tls = Tls()


class AuroraDSQLTarget(Model):
    """An Aurora DSQL cluster. The Secret holds `accessKeyId`, `secretAccessKey` and, where needed, `sessionToken`.

    Without a Secret the process's own AWS identity is used.
    """

    endpoint: Host
    port: Port = 5432
    region: Region
    database: Identifier = "postgres"
    user: Identifier = "admin"
    credentials_secret_ref: SecretRef | None = None
    tls: Tls = Tls()


class PostgreSQLTarget(Model):
    """A plain PostgreSQL server. The Secret holds `username` and `password`."""

    host: Host
    port: Port = 5432
    database: Identifier
    credentials_secret_ref: SecretRef
    tls: Tls = Tls()


class Source(Model):
    """Exactly one kind of source."""

    mysql: MySQLSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if self.mysql is None:
            raise ValueError("name exactly one source: mysql")
        return self


class Target(Model):
    """Exactly one kind of target."""

    aurora_dsql: AuroraDSQLTarget | None = Field(default=None, alias="auroraDSQL")
    postgresql: PostgreSQLTarget | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.aurora_dsql is None) == (self.postgresql is None):
            raise ValueError("name exactly one target: auroraDSQL or postgresql")
        return self
