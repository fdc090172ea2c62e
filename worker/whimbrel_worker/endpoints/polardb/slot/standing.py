"""What stands in a slot's log unread: looked at over an ordinary connection, and nothing is taken by that.

Call: PostgreSQL manual, "Replication Management Functions", pg_logical_slot_peek_binary_changes. The server decodes
from where the slot stands to the end of its log; its limit counts messages and is looked at after each transaction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from whimbrel_worker.endpoints.polardb.failures import slot_in_use, slot_lost, translate
from whimbrel_worker.endpoints.polardb.log.changes import Assembler, RowChange, Truncated
from whimbrel_worker.endpoints.polardb.log.messages import Relation
from whimbrel_worker.endpoints.polardb.log.pgoutput import decode
from whimbrel_worker.endpoints.polardb.log.walsender import publication_names
from whimbrel_worker.libpq import Connection

# The inner limit bounds what the server decodes, the outer one what it sends of one long transaction.
_PEEK: Final = """
SELECT data FROM pg_logical_slot_peek_binary_changes(
  %(slot)s::name, NULL::pg_lsn, %(most)s::int, 'proto_version', '1', 'publication_names', %(names)s::text
) LIMIT %(most)s
"""
TableName = Callable[[Relation], str | None]


@dataclass(frozen=True, slots=True)
class Standing:
    """Changes that nobody took. `first`, `last`: where commit records start, 0 for none; `whole`: there are no more."""

    changes: int = 0
    first: int = 0
    last: int = 0
    tables: tuple[str, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Sought:
    """Which changes: after `position`, in tables that have a name, of the next `most` messages."""

    slot: str
    publication: str
    position: int
    table_name: TableName
    most: int


def peek(connection: Connection, sought: Sought, where: str) -> Standing:
    """What stands in the slot.

    Raises SourceLogLost, Incompatible or ConfigurationError; SlotInUse where somebody reads the slot, else Transient.
    """
    slot, most = sought.slot, sought.most
    asked = {"slot": slot, "most": most, "names": publication_names((sought.publication,))}
    try:
        rows = connection.execute(_PEEK, asked).fetchall()
    except psycopg.errors.ObjectInUse:
        raise slot_in_use(where, slot, "unknown") from None
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise slot_lost(where, slot, error.diag.message_primary or str(error)) from None
    except psycopg.Error as error:
        raise translate(error, where) from None
    return standing([bytes(data) for (data,) in rows], sought.position, sought.table_name, whole=len(rows) < most)


def standing(messages: Sequence[bytes], position: int, table_name: TableName, *, whole: bool) -> Standing:
    """The same of messages of the plugin; the last transaction may be cut short. Raises Incompatible."""
    assembler, found = Assembler(position), Standing(whole=whole)
    for message in messages:
        event = assembler.feed(decode(message))
        if not isinstance(event, RowChange | Truncated):
            continue
        relations = event.relations if isinstance(event, Truncated) else (event.relation,)
        names = [name for relation in relations if (name := table_name(relation)) is not None]
        if names:
            found = _with(found, event.commit_lsn, names)
    return found


def _with(found: Standing, commit: int, names: Sequence[str]) -> Standing:
    tables = (*found.tables, *(name for name in names if name not in found.tables))
    return Standing(found.changes + 1, found.first or commit, max(found.last, commit), tables, found.whole)
