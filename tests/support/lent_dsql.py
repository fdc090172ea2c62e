"""What a test run makes in a cluster that belongs to somebody: schemas and migrations of its own, removed afterwards.

By hand: `python -m support.lent_dsql check` (is a cluster named?) and `clean` (remove what a killed run has left).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from support.named_dsql import GUIDE, NamedDSQL, NotNamed, WronglyNamed

CONTROL = "whimbrel"
SCHEMA_PREFIX, NAMESPACE_PREFIX = "whimbrel_test_", "whimbrel-test-"
"""By these a run's things are known in the cluster; `clean` touches nothing else."""
_ATTEMPTS = 20
_PAUSE = 0.2

Connection = psycopg.Connection[tuple[Any, ...]]


class Occupied(Exception):
    """The cluster holds migrations already; a test must not run beside them."""


@dataclass
class Lent:
    """A cluster for one run. `control_was_there`: the schema `whimbrel` stood there before and stays."""

    cluster: NamedDSQL
    control_was_there: bool
    run: str = field(default_factory=lambda: os.urandom(4).hex())

    def schema(self, what: str) -> str:
        """The name of a schema that this run may make."""
        return f"{SCHEMA_PREFIX}{self.run}_{what}"

    def namespace(self, what: str) -> str:
        """The name of a namespace that this run may make; migrations are known by it."""
        return f"{NAMESPACE_PREFIX}{self.run}-{what}"


@contextmanager
def lent(cluster: NamedDSQL) -> Iterator[Lent]:
    """The cluster until the block is left, then without anything of this run.

    Raises Occupied where migrations stand in it, and psycopg's error where it does not let us in.
    """
    with cluster.connect() as connection:
        was_there = has_schema(connection, CONTROL)
        if names := migrations(connection):
            raise Occupied(_occupied(cluster, names))
    borrowed = Lent(cluster, was_there)
    print(f"\n{cluster.endpoint}: this run's schemas are {borrowed.schema('*')}", flush=True)
    try:
        yield borrowed
    finally:
        with cluster.connect() as connection:
            for name in schemas(connection, f"{SCHEMA_PREFIX}{borrowed.run}_"):
                drop_schema(connection, name)
            forget(connection, f"{NAMESPACE_PREFIX}{borrowed.run}-", drop=not was_there)


def _occupied(cluster: NamedDSQL, names: list[str]) -> str:
    ours = [name for name in names if name.startswith(NAMESPACE_PREFIX)]
    hint = "left by a run that was killed, or by one that still goes on: make test-aws CLEAN=1 removes them"
    todo = hint if ours == names else f"name a cluster without migrations, or end them first; see {GUIDE}"
    return (
        f"{cluster.endpoint} holds migrations in its schema {CONTROL}: {', '.join(names)}. Nothing was touched; {todo}"
    )


def has_schema(connection: Connection, name: str) -> bool:
    """Whether the schema is there."""
    return name in schemas(connection, name)


def schemas(connection: Connection, prefix: str) -> list[str]:
    """The schemas whose name begins so."""
    asked = "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE starts_with(nspname::text, %s) ORDER BY 1"
    return [name for (name,) in connection.execute(asked, (prefix,)).fetchall()]


def tables(connection: Connection, schema: str) -> list[str]:
    """The tables of a schema."""
    asked = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = %s ORDER BY 1"
    return [name for (name,) in connection.execute(asked, (schema,)).fetchall()]


def migrations(connection: Connection) -> list[str]:
    """The migrations that the control schema knows, as namespace/name."""
    if "migrations" not in tables(connection, CONTROL):
        return []
    return [name for (name,) in connection.execute(f"SELECT migration FROM {CONTROL}.migrations ORDER BY 1").fetchall()]


def drop_schema(connection: Connection, name: str) -> None:
    """Drop a schema, table by table: one DDL statement a transaction."""
    for table in tables(connection, name):
        insist(connection, sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name, table)))
    insist(connection, sql.SQL("DROP SCHEMA IF EXISTS {}").format(sql.Identifier(name)))


def forget(connection: Connection, prefix: str, *, drop: bool) -> None:
    """Delete the control rows of migrations that begin so; with `drop` the control schema too, if none is left."""
    if not has_schema(connection, CONTROL):
        return
    for table in tables(connection, CONTROL):
        told = sql.SQL("DELETE FROM {} WHERE starts_with(migration, {})")
        insist(connection, told.format(sql.Identifier(CONTROL, table), sql.Literal(prefix)))
    if drop and not migrations(connection):
        drop_schema(connection, CONTROL)


def insist(connection: Connection, statement: sql.Composed) -> None:
    """Run a statement; conflicts and stale catalogues (40001) are tried again, with a growing pause."""
    for attempt in range(_ATTEMPTS):
        try:
            connection.execute(statement)
        except psycopg.errors.SerializationFailure:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, _PAUSE * (attempt + 1)))
        else:
            return


def clean(cluster: NamedDSQL) -> list[str]:
    """Remove what earlier runs have left; returns it in words. The control schema stays, without their rows."""
    with cluster.connect() as connection:
        left = schemas(connection, SCHEMA_PREFIX)
        rows = [name for name in migrations(connection) if name.startswith(NAMESPACE_PREFIX)]
        for name in left:
            drop_schema(connection, name)
        forget(connection, NAMESPACE_PREFIX, drop=False)
    return [f"schema {name}" for name in left] + [f"migration {name}" for name in rows]


def main(arguments: list[str]) -> int:
    """`check`: 0 where a cluster is named, 3 where none is; `clean`: 0. What is wrong ends with 2 and a line."""
    try:
        cluster = NamedDSQL.from_environment(os.environ)
        cluster.token()
        if arguments == ["clean"]:
            removed = clean(cluster)
            print("\n".join([f"removed {each}" for each in removed] or ["nothing of an earlier run was left"]))
    except NotNamed as nothing:
        print(nothing)
        return 3
    except (WronglyNamed, psycopg.Error) as error:
        print(f"test-aws: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
