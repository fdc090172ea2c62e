"""What all libpq connections of a worker have in common, whichever endpoint makes them: patience, and what errors say.

What an SQLSTATE means for a migration differs from side to side, and stands with each endpoint.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from whimbrel_worker.errors import WorkerError

Connection = psycopg.Connection[tuple[Any, ...]]


def open_libpq(**parameters: Any) -> Connection:
    """A new connection, autocommit on; a host that is gone is noticed within a minute. Raises psycopg.Error."""
    return psycopg.connect(
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=10,
        keepalives_idle=15,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=45_000,
        application_name="whimbrel",
        **parameters,
    )


def lost(error: psycopg.Error) -> bool:
    """Whether the connection itself is gone, so that the outcome of what was under way is not known."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not error.sqlstate


def first_line(error: psycopg.Error) -> str:
    """The message without context lines, which may quote rows."""
    text = error.diag.message_primary or str(error)
    return text.strip().splitlines()[0][:500] if text.strip() else type(error).__name__


def guarding(
    translate: Callable[[psycopg.Error, str], WorkerError],
) -> Callable[[str], contextlib.AbstractContextManager[None]]:
    """A context manager that turns psycopg's errors inside its block into the worker's own; it is given the place."""

    @contextlib.contextmanager
    def guarded(where: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise translate(error, where) from None

    return guarded
