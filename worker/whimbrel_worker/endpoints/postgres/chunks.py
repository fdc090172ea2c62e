"""The control rows of chunks: planned, claimed, advanced, given back. How a chunk is copied is the engine's matter."""

import json
from collections.abc import Sequence

from psycopg import sql

from whimbrel_worker.endpoints.postgres.names import control_table
from whimbrel_worker.engine.ports import Chunk, ChunkProgress, Identity
from whimbrel_worker.errors import FencedOut
from whimbrel_worker.libpq import Connection

_CHUNKS = control_table("chunks")
_COLUMNS = "tbl, number, low, high, resume_after, copied"
CHUNK_FREE, CHUNK_CLAIMED, CHUNK_DONE = "free", "claimed", "done"
_CLAIMABLE = sql.SQL("(c.state = %s OR c.state = %s AND c.owner = %s AND c.owner_attempt <= %s)")


def _claimant(index: int, attempt: int) -> tuple[str, str, int, int]:
    """The parameters of _CLAIMABLE."""
    return CHUNK_FREE, CHUNK_CLAIMED, index, attempt


def key_text(key: tuple[str, ...] | None) -> str | None:
    """Key cells as a control column holds them."""
    return None if key is None else json.dumps(key)


def key_cells(text: str | None) -> tuple[str, ...] | None:
    """The inverse of key_text."""
    return None if text is None else tuple(json.loads(text))


def chunk_of(row: tuple[str, int, str | None, str | None, str | None, int]) -> Chunk:
    """A chunk from its control row."""
    table, number, low, high, resume_after, rows = row
    return Chunk(table, number, key_cells(low), key_cells(high), key_cells(resume_after), rows)


def insert_chunks(connection: Connection, migration: str, chunks: Sequence[Chunk]) -> None:
    """Add planned chunks; repeated ones stay as they are. Raises FencedOut where another planner cut them otherwise.

    Chunks of two planners would leave gaps between them, so each must find exactly its own bounds.
    """
    for chunk in chunks:
        bounds = (key_text(chunk.low), key_text(chunk.high))
        found = connection.execute(
            sql.SQL(
                "INSERT INTO {} (migration, tbl, number, low, high, state, copied) VALUES (%s, %s, %s, %s, %s, %s, 0)"
                " ON CONFLICT (migration, tbl, number) DO UPDATE SET number = excluded.number RETURNING low, high"
            ).format(_CHUNKS),
            (migration, chunk.table, chunk.number, *bounds, CHUNK_FREE),
        ).fetchone()
        if found != bounds:
            raise FencedOut(
                f"another worker plans the chunks of {chunk.table} now",
                where=f"chunk {chunk.number}",
                why="this worker was silent for so long that its planning was given to another",
                todo="nothing: it is started again and takes on other work",
            )


def select_chunks(connection: Connection, migration: str, table: str) -> list[Chunk]:
    """A table's chunks in order."""
    rows = connection.execute(
        sql.SQL("SELECT {} FROM {} WHERE migration = %s AND tbl = %s ORDER BY number").format(
            sql.SQL(_COLUMNS), _CHUNKS
        ),
        (migration, table),
    ).fetchall()
    return [chunk_of(row) for row in rows]


def claimable(connection: Connection, migration: str, index: int, attempt: int, limit: int) -> list[Chunk]:
    """Some chunks that nobody holds, and those that this worker holds without knowing it; stopped tables apart.

    A worker asks only when it works on none: what it holds then is a claim whose reply was lost, or one that a former
    attempt made after its end.
    """
    rows = connection.execute(
        sql.SQL(
            "SELECT {} FROM {} AS c JOIN {} AS t ON t.migration = c.migration AND t.name = c.tbl"
            " WHERE c.migration = %s AND {} AND t.state <> 'Stopped' ORDER BY c.tbl, c.number LIMIT %s"
        ).format(sql.SQL(_COLUMNS), _CHUNKS, control_table("tables"), _CLAIMABLE),
        (migration, *_claimant(index, attempt), limit),
    ).fetchall()
    return [chunk_of(row) for row in rows]


def claim(connection: Connection, migration: str, chunk: Chunk, index: int, attempt: int) -> bool:
    """Claim a claimable chunk; false when somebody else was faster."""
    cursor = connection.execute(
        sql.SQL(
            "UPDATE {} AS c SET state = %s, owner = %s, owner_attempt = %s"
            " WHERE c.migration = %s AND c.tbl = %s AND c.number = %s AND {}"
        ).format(_CHUNKS, _CLAIMABLE),
        (CHUNK_CLAIMED, index, attempt, migration, chunk.table, chunk.number, *_claimant(index, attempt)),
    )
    return cursor.rowcount == 1


def release(connection: Connection, migration: str, index: int, before_attempt: int) -> int:
    """Give back what earlier attempts of a worker held."""
    cursor = connection.execute(
        sql.SQL(
            "UPDATE {} SET state = %s, owner = NULL WHERE migration = %s AND state = %s AND owner = %s"
            " AND owner_attempt < %s"
        ).format(_CHUNKS),
        (CHUNK_FREE, migration, CHUNK_CLAIMED, index, before_attempt),
    )
    return cursor.rowcount


def update_chunk(connection: Connection, identity: Identity, attempt: int, progress: ChunkProgress) -> None:
    """Record progress inside the caller's transaction. Raises FencedOut when the chunk went to somebody else."""
    chunk = progress.chunk
    cursor = connection.execute(
        sql.SQL(
            "UPDATE {} SET resume_after = %s, copied = %s, state = %s, owner_attempt = %s"
            " WHERE migration = %s AND tbl = %s AND number = %s AND state = %s AND owner = %s AND owner_attempt <= %s"
        ).format(_CHUNKS),
        (
            key_text(progress.resume_after),
            progress.rows,
            CHUNK_DONE if progress.done else CHUNK_CLAIMED,
            attempt,
            identity.migration,
            chunk.table,
            chunk.number,
            CHUNK_CLAIMED,
            identity.index,
            attempt,
        ),
    )
    if cursor.rowcount != 1:
        raise FencedOut(
            f"chunk {chunk.number} is no longer this worker's", where=f"{chunk.table}, worker {identity.index}"
        )
