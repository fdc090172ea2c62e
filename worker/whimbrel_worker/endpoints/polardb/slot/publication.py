"""The publication: made, judged, dropped, and the mark that tells that we made it. No slot and no stream here.

The mark is the publication's COMMENT, written in the transaction that makes it, so that one without the mark is
somebody else's. Manual: "CREATE PUBLICATION", "pg_publication", "pg_publication_tables".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import psycopg
from psycopg import sql

from whimbrel_worker.endpoints.polardb.failures import guarded, translate
from whimbrel_worker.endpoints.polardb.log.walsender import checked_name
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.libpq import Connection

_MARK: Final = "whimbrel "
_LOOK: Final = """
SELECT p.oid::bigint, puballtables, pubinsert AND pubupdate AND pubdelete, pubtruncate,
       obj_description(p.oid, 'pg_publication')
FROM pg_publication p WHERE pubname = %s
"""
_TABLES: Final = "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s ORDER BY 1, 2"
# A column list or a row filter (version 15) would leave parts of items out without a word.
_NARROWED: Final = """
SELECT r.prrelid::regclass::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE p.pubname = %s AND (to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL) ORDER BY 1
"""
_WITHOUT_IDENTITY: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
  AND (c.relreplident = 'n' OR (c.relreplident = 'd'
       AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)))
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Qualified:
    """A table on the server."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Mark:
    """Who made a publication, and the slot that goes with it: written before that slot is made."""

    owner: str
    slot: str

    def text(self) -> str:
        """The mark as a comment."""
        return _MARK + orjson.dumps({"owner": self.owner, "slot": self.slot}).decode()


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication as it stands. `changes`: inserts, updates and deletes are all in it. `mark` is None if not ours.

    One of another `oid` is another publication: from version 18 on a server passes over, with a warning in its own log
    alone, what was changed while none was there.
    """

    name: str
    oid: int
    all_tables: bool
    changes: bool
    truncates: bool
    mark: Mark | None


def look(connection: Connection, name: str, where: str) -> Publication | None:
    """The publication; None where there is none."""
    with guarded(where):
        row = connection.execute(_LOOK, (name,)).fetchone()
    return None if row is None else Publication(name, row[0], row[1], row[2], row[3], read_mark(row[4]))


def read_mark(comment: str | None) -> Mark | None:
    """The mark in a comment; None for any other comment."""
    if comment is None or not comment.startswith(_MARK):
        return None
    try:
        said = orjson.loads(comment.removeprefix(_MARK))
        return Mark(str(said["owner"]), str(said["slot"]))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def tables(connection: Connection, name: str, where: str) -> list[Qualified]:
    """The tables that it carries now."""
    with guarded(where):
        return [Qualified(*row) for row in connection.execute(_TABLES, (name,)).fetchall()]


def without_identity(connection: Connection, where: str) -> list[Qualified]:
    """Tables whose updates and deletes the server would refuse once they are published: no key, no identity."""
    with guarded(where):
        return [Qualified(*row) for row in connection.execute(_WITHOUT_IDENTITY, ()).fetchall()]


def create(connection: Connection, name: str, mark: Mark, only: Sequence[Qualified] | None, where: str) -> bool:
    """Make it with its mark, FOR ALL TABLES or for those given; False where it is ours already.

    Raises ConfigurationError where it is somebody else's, where a right is missing, or where a table has no replica
    identity: the server would refuse the application's own updates of it from then on.
    """
    there = look(connection, name, where)
    if there is not None and there.mark == mark:
        return False
    if there is not None:
        raise _taken(there, where)
    if only is not None and not only:
        raise _unfit(where, "no table is selected")
    _refuse_without_identity(without_identity(connection, where), only, where)
    try:
        with connection.transaction():
            connection.execute(_create_statement(name, only))
            comment = sql.SQL("COMMENT ON PUBLICATION {} IS {}")
            connection.execute(comment.format(sql.Identifier(name), sql.Literal(mark.text())))
    except psycopg.errors.DuplicateObject:
        return create(connection, name, mark, only, where)
    except psycopg.errors.UndefinedTable as error:
        raise ConfigurationError(
            "a table that is to be published is not there",
            where=where,
            why=error.diag.message_primary or str(error),
            todo="make it, or leave it out in spec.tables",
        ) from None
    except psycopg.Error as error:
        raise translate(error, where) from None
    return True


def _create_statement(name: str, only: Sequence[Qualified] | None) -> sql.Composed:
    """`publish_via_partition_root`: a partition's changes come under the name of the table that people know."""
    listed: sql.Composable = sql.SQL("ALL TABLES")
    if only is not None:
        listed = sql.SQL("TABLE ") + sql.SQL(", ").join(sql.Identifier(each.schema, each.name) for each in only)
    options = sql.SQL("WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)")
    return sql.SQL("CREATE PUBLICATION {} FOR {} {}").format(sql.Identifier(checked_name(name)), listed, options)


def _refuse_without_identity(bare: Sequence[Qualified], only: Sequence[Qualified] | None, where: str) -> None:
    wanted = set(bare if only is None else only)
    published = [each for each in bare if each in wanted]
    if published:
        raise ConfigurationError(
            "tables without a replica identity cannot be published",
            where=where,
            why=f"the server would refuse the application's updates and deletes of {_some(published)}",
            todo="give each a primary key or ALTER TABLE … REPLICA IDENTITY FULL, or leave them out in spec.tables",
        )


def _taken(there: Publication, where: str) -> ConfigurationError:
    return ConfigurationError(
        "the publication is there already",
        where=where,
        why=f"{there.name} was made by {there.mark.owner if there.mark else 'somebody else'}",
        todo="name another one in spec.publicationName, or set spec.createPublication to false to use it as it is",
    )


def check(connection: Connection, name: str, wanted: Sequence[Qualified], where: str) -> None:
    """See that a publication, whoever made it, carries all changes of the wanted tables. Raises ConfigurationError."""
    there = look(connection, name, where)
    if there is None:
        raise _unfit(where, f"there is no publication {name}")
    if not there.changes:
        raise _unfit(where, f"{name} leaves out inserts, updates or deletes")
    missing = sorted(set(wanted) - set(tables(connection, name, where)), key=str)
    if missing:
        raise _unfit(where, f"{name} does not carry {_some(missing)}")
    with guarded(where):
        narrowed = connection.execute(_NARROWED, (name,)).fetchall()
    if narrowed:
        raise _unfit(where, f"{name} carries only some columns or rows of {_some([row[0] for row in narrowed])}")


def _unfit(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        "the publication does not carry what is needed",
        where=where,
        why=why,
        todo="correct it on the source, or let one be made: spec.createPublication: true",
    )


def drop(connection: Connection, name: str, owner: str, where: str) -> bool:
    """Drop it if this owner made it; False where it is not there or is somebody else's. Safe to repeat."""
    there = look(connection, name, where)
    if there is None or there.mark is None or there.mark.owner != owner:
        return False
    with guarded(where):
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
    return True


def _some(names: Sequence[Any]) -> str:
    told = ", ".join(str(name) for name in names[:10])
    return told if len(names) <= 10 else f"{told} and {len(names) - 10} more"
