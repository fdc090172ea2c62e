"""What a server that claims to be Aurora DSQL answers: questions that can be put to the service and to the stand-in.

Each question is a function of an `Asked` server and gives one Answer; whether two answers agree is the test's affair.
Connections are the question's own. The texts that the stand-in assumes are listed in docs/testbed-dsql.md.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from support.named_dsql import NamedDSQL

_TOKEN_PART = re.compile(r"X-Amz-[A-Za-z-]+=[^&\s\"]+")
_STALE_ATTEMPTS = 20
_TIMES = 5

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Answer:
    """An error's SQLSTATE, text and hint, or without SQLSTATE what came in its place."""

    sqlstate: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return " ".join(
            part for part in (self.sqlstate or "taken:", self.message, self.hint and f"({self.hint})") if part
        )


@dataclass(frozen=True)
class Asked:
    """A server, with a schema of this run in it."""

    cluster: NamedDSQL
    schema: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def fresh(self) -> str:
        """A qualified table name that is not taken."""
        return f"{self.schema}.t{next(self.numbers)}"

    @contextmanager
    def connection(self, **changes: Any) -> Iterator[Connection]:
        """A connection in autocommit; what it has open when the block is left is given up."""
        opened = self.cluster.connect(**changes)
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def table(self) -> Iterator[tuple[Connection, str]]:
        """A connection and a fresh table with id and v, three rows in it."""
        name = self.fresh()
        with self.connection() as connection:
            run(connection, f"CREATE TABLE {name} (id int PRIMARY KEY, v text)")
            run(connection, f"INSERT INTO {name} VALUES (1, 'a'), (2, 'b'), (3, 'c')")
            yield connection, name


Question = Callable[[Asked], Answer]


def put(question: Question, asked: Asked) -> Answer:
    """The answer to a question, asked anew where another session's DDL (OC001) came between; at most five times."""
    for _ in range(_TIMES - 1):
        try:
            answer = question(asked)
        except (psycopg.errors.SerializationFailure, psycopg.errors.InFailedSqlTransaction):
            continue
        if "OC001" not in answer.message:
            return answer
    return question(asked)


def run(connection: Connection, statement: str, parameters: tuple[Any, ...] | None = None) -> psycopg.Cursor[Any]:
    """Run a statement; a stale catalogue (OC001), which any DDL anywhere causes, is no answer to anything."""
    for attempt in itertools.count(1):
        try:
            return connection.execute(statement.encode(), parameters)
        except psycopg.errors.SerializationFailure as error:
            if "OC001" not in str(error) or attempt == _STALE_ATTEMPTS:
                raise
            time.sleep(0.05 * attempt)
    raise AssertionError("unreachable")


def answer_of(act: Callable[[], object]) -> Answer:
    """What an act is answered with."""
    try:
        found = act()
    except psycopg.Error as error:
        return _refusal(error)
    return Answer("", _masked(str(found)))


def _refusal(error: psycopg.Error) -> Answer:
    if error.diag.message_primary is not None:
        hint = error.diag.message_hint or ""
        return Answer(error.sqlstate or "", _masked(error.diag.message_primary), _masked(hint))
    # While connecting, and where the connection ends, libpq gives one text: address and port stand before FATAL.
    text = _masked(str(error)).rpartition("FATAL:")[2]
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    hint = next((line[5:].strip() for line in lines if line.startswith("HINT:")), "")
    return Answer("FATAL", lines[0] if lines else type(error).__name__, hint)


def _masked(text: str) -> str:
    return _TOKEN_PART.sub("X-Amz-…", text)


def statement(text: str) -> Question:
    """A single statement; {t} is a fresh table with id and v, {n} a name that is free."""

    def ask(asked: Asked) -> Answer:
        if "{t}" in text:
            with asked.table() as (connection, name):
                return answer_of(lambda: run(connection, text.format(t=name)).statusmessage)
        with asked.connection() as connection:
            return answer_of(lambda: run(connection, text.format(n=asked.fresh())).statusmessage)

    return ask


def script(*statements: str) -> Question:
    """Statements on one connection; the answer is the last one's, and those before it must be taken."""

    def ask(asked: Asked) -> Answer:
        with asked.table() as (connection, name):
            other = asked.fresh()
            for text in statements[:-1]:
                run(connection, text.format(t=name, n=other))
            return answer_of(lambda: run(connection, statements[-1].format(t=name, n=other)).statusmessage)

    return ask


def value(setup: str, question: str) -> Question:
    """The first row of a question after one statement."""

    def ask(asked: Asked) -> Answer:
        with asked.table() as (connection, name):
            other = asked.fresh()
            run(connection, setup.format(t=name, n=other))
            return answer_of(lambda: run(connection, question.format(t=name, n=other)).fetchone())

    return ask


def connecting(change: Callable[[NamedDSQL], dict[str, Any]]) -> Question:
    """Connecting with something changed."""

    def ask(asked: Asked) -> Answer:
        def attempt() -> object:
            with asked.connection(**change(asked.cluster)) as connection:
                return connection.execute("SELECT current_user::text").fetchone()

        return answer_of(attempt)

    return ask
