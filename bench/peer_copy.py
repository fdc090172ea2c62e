"""What one would write by hand: a MySQL driver without conversion, rows joined into COPY blocks. Runs as a process
of its own."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

_BATCH = 5000
Rows = Sequence[Sequence[bytes | None]]


def mysqlclient(access: Sequence[str], select: str) -> Iterator[Rows]:
    """Rows as bytes, unbuffered."""
    import MySQLdb  # type: ignore[import-untyped]
    import MySQLdb.cursors  # type: ignore[import-untyped]

    host, port, user, password, authority = access
    connection = MySQLdb.connect(
        host=host, port=int(port), user=user, password=password, ssl={"ca": authority},
        ssl_mode="VERIFY_IDENTITY", conv={}, charset="utf8mb4", use_unicode=False, cursorclass=MySQLdb.cursors.SSCursor,
    )  # fmt: skip
    yield from _fetch(connection, select)


def _fetch(connection: Any, select: str) -> Iterator[Rows]:
    cursor = connection.cursor()
    cursor.execute("SET SESSION time_zone = '+00:00'")
    cursor.execute(select)
    while rows := cursor.fetchmany(_BATCH):
        yield rows


def line(row: Sequence[bytes | bytearray | None]) -> bytes:
    """A row as a line of COPY's text format."""
    return b"\t".join([b"\\N" if cell is None else cell.replace(b"\\", b"\\\\") for cell in row])


def main() -> None:
    """Copy everything."""
    batches = mysqlclient(os.environ["BENCH_MYSQL"].split(), os.environ["BENCH_SELECT"])
    with psycopg.connect(os.environ["BENCH_POSTGRES"]) as target, target.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'")
        with cursor.copy("COPY bench.rows FROM STDIN") as copy:
            for rows in batches:
                copy.write(b"\n".join(map(line, rows)) + b"\n")


if __name__ == "__main__":
    main()
