"""Random traffic on tables whose keys move and whose unique values change hands."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import pymysql

from support.patience import beside
from whimbrel_testbed.mysql import MySQLServer

CHURNED = ["words", "users", "pairs"]
_TABLES = (
    "CREATE TABLE words (id VARCHAR(20) COLLATE utf8mb4_bin PRIMARY KEY, n INT, body VARCHAR(200))",
    "CREATE TABLE users (id INT PRIMARY KEY, mail VARCHAR(20) UNIQUE, n INT)",
    "CREATE TABLE pairs (a INT, b INT, n INT, PRIMARY KEY (b, a))",
)
_IGNORED = {1062, 1213}
"""A duplicate key (the statement changed nothing), a deadlock (nor did the transaction): the traffic goes on."""


class Place(Protocol):
    """Where the tables are."""

    mysql: MySQLServer
    database: str

    def execute(self, *statements: str) -> None: ...


def make_churned(lab: Place, rows: int = 0) -> None:
    """The tables, with some rows."""
    lab.execute(*_TABLES)
    with closing(lab.mysql.connect(lab.database)) as connection, connection.cursor() as cursor:
        if rows:
            cursor.executemany("INSERT INTO words VALUES (%s, 0, 'start')", [(f"w{n}",) for n in range(rows)])
            cursor.executemany("INSERT INTO users VALUES (%s, %s, 0)", [(n, f"mail{n}") for n in range(rows)])
            cursor.executemany("INSERT INTO pairs VALUES (%s, %s, 0)", [(n % 50, n // 50) for n in range(rows)])


def churn(
    lab: Place, rng: random.Random, transactions: int, keys: int = 60, stop: threading.Event | None = None
) -> int:
    """Run transactions of one to eight statements, one in ten rolled back; returns how many were committed."""
    committed = 0
    with closing(lab.mysql.connect(lab.database, autocommit=False)) as connection, connection.cursor() as cursor:
        for _ in range(transactions):
            if stop is not None and stop.is_set():
                break
            for _ in range(rng.choice([1, 1, 1, 2, 8])):
                _attempt(cursor, _statement(rng, keys))
            if rng.random() < 0.1:
                connection.rollback()
            else:
                connection.commit()
                committed += 1
    return committed


@contextmanager
def churning(lab: Place, rng: random.Random, keys: int = 60, pause: float = 0.02) -> Iterator[threading.Event]:
    """An application in a thread of its own, two transactions each `pause` seconds, until the event is set."""
    with beside(lambda stop: churn(lab, rng, 2, keys, stop), pause) as stop:
        yield stop


def _attempt(cursor: Any, statement: str) -> None:
    try:
        cursor.execute(statement)
    except pymysql.err.MySQLError as error:
        if error.args[0] not in _IGNORED:
            raise


def _statement(rng: random.Random, keys: int) -> str:
    key, other, n = rng.randrange(keys), rng.randrange(keys), rng.randrange(1_000_000)
    return rng.choice(
        [
            f"INSERT INTO words VALUES ('w{key}', {n}, REPEAT('b', {n % 150})) ON DUPLICATE KEY UPDATE n = {n}",
            f"UPDATE words SET id = 'w{other}' WHERE id = 'w{key}'",
            f"DELETE FROM words WHERE id = 'w{key}'",
            f"UPDATE words SET n = n + 1 WHERE id BETWEEN 'w{key}' AND 'w{other}'",
            f"REPLACE INTO users VALUES ({key}, 'mail{other}', {n})",
            f"UPDATE users SET id = {other} WHERE id = {key}",
            f"UPDATE users SET mail = 'mail{other}' WHERE id = {key}",
            f"DELETE FROM users WHERE id = {key}",
            f"INSERT INTO pairs VALUES ({key % 50}, {other}, {n}) ON DUPLICATE KEY UPDATE n = {n}",
            f"UPDATE pairs SET b = {other}, a = {other % 50} WHERE b = {key} LIMIT 1",
            f"DELETE FROM pairs WHERE a = {key % 50} LIMIT 3",
        ]
    )
