"""Connections to MySQL that a server ends for a test. What the worker makes of it, tests say."""

from pymysql.cursors import Cursor
from pymysql.err import OperationalError

_NO_SUCH_THREAD = 1094


def kill_connections(cursor: Cursor, user: str) -> int:
    """KILL every connection of an account; how many there were. One that has ended meanwhile is as good as killed."""
    # Not the table of the same name in performance_schema, which is empty where that is switched off.
    cursor.execute("SELECT id FROM information_schema.processlist WHERE user = %s", (user,))
    numbers = [int(number) for (number,) in cursor.fetchall()]
    for number in numbers:
        try:
            cursor.execute(f"KILL {number}")
        except OperationalError as error:
            if error.args[0] != _NO_SUCH_THREAD:
                raise
    return len(numbers)
