"""What the traffic does to the flights tables: transactions chosen by a seed; it talks to no server.

Every statement changes exactly the rows it names, so that the plan always knows which keys are there.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

HOSTILE_TEXTS = (
    "plain", "", " leading and trailing ", "tab\tin it", "line\nfeed", "carriage\r\nreturn", "back\\slash", "\\N",
    "\\.", "NULL",
    "it's \"quoted\"", "semi;colon -- comment", "4 bytes: \N{BIRD}\N{AIRPLANE DEPARTURE}", "ünïcödé ß İ ı",
    "{braces,\"and\"}", "a,b,c", "e\N{COMBINING ACUTE ACCENT} combined", "right to left \N{RIGHT-TO-LEFT OVERRIDE}",
    "\x01\x7f controls", "%s %(x)s {}", "$1 :x",
)  # fmt: skip
"""Values that break careless quoting, COPY escapes and array literals."""

Kind: TypeAlias = Literal["inserts", "updates", "deletes", "key_changes"]
Statement: TypeAlias = tuple[Kind, str, tuple[Any, ...]]
"""What its rows count as, the SQL with PyMySQL's placeholders, and the parameters."""

_HOT = 5
_MADE_UP_HOUR = datetime.datetime(2014, 6, 1)
_FLIGHT_COLUMNS = (
    "id, year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time, arr_delay, carrier, flight, "
    "tailnum, origin, dest, air_time, distance, hour, minute, time_hour"
)


@dataclass(frozen=True)
class Transaction:
    """Statements to run in order; where `commit` is false, they are rolled back and must leave no trace anywhere."""

    statements: list[Statement]
    commit: bool = True


@dataclass
class TrafficPlan:
    """The keys known to be in the tables, and the choice of what to do to them next.

    `ids` are keys of flights, `planes` of planes, `weather` of weather; `airlines` and `airports` lose and gain no
    rows.
    """

    rng: random.Random
    ids: list[int]
    planes: list[str]
    weather: list[tuple[str, datetime.datetime]]
    airlines: list[str]
    airports: list[str]
    freed: list[int] = field(default_factory=list)
    next_id: int = field(init=False)
    _made_up: int = field(init=False)

    def __post_init__(self) -> None:
        self.next_id = max(self.ids, default=0) + 1
        # A plan made again over the same tables must not make up a key that an earlier one made up.
        self._made_up = self.rng.randrange(1, 10**8)

    def next_transaction(self) -> Transaction:
        """Choose the next transaction; its changes of keys are taken as done."""
        recipes: tuple[tuple[Callable[[], list[Statement]], int], ...] = (
            (self._insert_flights, 20), (self._update_flights, 25), (self._delete_flights, 8), (self._move_flight, 10),
            (self._move_flight_back, 6), (self._hot_rows, 12), (self._same_row_again, 6), (self._rename_plane, 5),
            (self._texts, 10), (self._move_weather, 5), (self._update_weather, 6), (self._many_rows, 2),
        )  # fmt: skip
        if self.rng.random() < 0.025:
            return Transaction(self._phantoms(), commit=False)
        recipe = self.rng.choices([made for made, _ in recipes], [weight for _, weight in recipes])[0]
        return Transaction(recipe())

    def _insert_flights(self) -> list[Statement]:
        statements = []
        for _ in range(self.rng.choice((1, 1, 1, 3))):
            statements.append(self._insert(self._new_id()))
            self.ids.append(self.next_id - 1)
        return statements

    def _new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def _insert(self, key: int) -> Statement:
        rng, null = self.rng, self.rng.random() < 0.3
        departure = None if null else rng.randrange(0, 2400)
        values = (
            key, 2013, rng.randrange(1, 13), rng.randrange(1, 29), departure, 600, None if null else
            rng.randrange(-30, 400),
            None if null else 1200, 1210, None if null else -10, rng.choice(self.airlines), rng.randrange(1, 9999),
            None if null else rng.choice(("", "N1'\\", "N\N{BIRD}1", "N14228")), "EWR", "IAH", None if null else 227,
            rng.randrange(80, 5000), 6, 0, datetime.datetime(2013, 12, 31, 23, 59, 59),
        )  # fmt: skip
        places = ", ".join(["%s"] * len(values))
        return "inserts", f"INSERT INTO flights ({_FLIGHT_COLUMNS}) VALUES ({places})", values

    def _update_flights(self) -> list[Statement]:
        count = min(self.rng.choice((1, 1, 2, 5)), len(self.ids))
        return [self._update(key) for key in self.rng.sample(self.ids, count)]

    def _update(self, key: int) -> Statement:
        delay = self.rng.choice((None, self.rng.randrange(-60, 1000)))
        tail = self.rng.choice((None, "", "NULL", "\\N", "N14228", "N\N{BIRD}\tx"))
        return "updates", "UPDATE flights SET dep_delay = %s, tailnum = %s WHERE id = %s", (delay, tail, key)

    def _delete_flights(self) -> list[Statement]:
        count = min(self.rng.choice((1, 1, 2)), max(0, len(self.ids) - _HOT))
        return [self._delete(self._take_id()) for _ in range(count)]

    def _take_id(self) -> int:
        """Take a key out of the known ones, never a hot one."""
        at = self.rng.randrange(_HOT, len(self.ids))
        self.ids[at], self.ids[-1] = self.ids[-1], self.ids[at]
        self.freed.append(self.ids[-1])
        return self.ids.pop()

    def _delete(self, key: int) -> Statement:
        return "deletes", "DELETE FROM flights WHERE id = %s", (key,)

    def _move_flight(self) -> list[Statement]:
        """Move a row to a key above all others: from a chunk that may be copied to one that is not yet."""
        if len(self.ids) <= _HOT:
            return self._insert_flights()
        old, new = self._take_id(), self._new_id()
        self.ids.append(new)
        return [("key_changes", "UPDATE flights SET id = %s, dep_delay = -1 WHERE id = %s", (new, old))]

    def _move_flight_back(self) -> list[Statement]:
        """Move a row into a key that was freed: down, past the snapshot's front."""
        if len(self.ids) <= _HOT or not self.freed:
            return self._insert_flights()
        new = self.freed.pop(self.rng.randrange(len(self.freed)))
        old = self._take_id()
        self.ids.append(new)
        return [("key_changes", "UPDATE flights SET id = %s WHERE id = %s", (new, old))]

    def _hot_rows(self) -> list[Statement]:
        return [self._update(key) for key in self.rng.choices(self.ids[:_HOT], k=3)] if self.ids else []

    def _same_row_again(self) -> list[Statement]:
        """One key inserted, changed, moved, deleted and inserted again within a transaction."""
        first, second = self._new_id(), self._new_id()
        self.ids.append(first)
        return [
            self._insert(first), self._update(first),
            ("key_changes", "UPDATE flights SET id = %s WHERE id = %s", (second, first)),
            self._update(second), self._insert(first), self._delete(second), self._update(first),
        ]  # fmt: skip

    def _rename_plane(self) -> list[Statement]:
        if not self.planes:
            return self._insert_flights()
        at = self.rng.randrange(len(self.planes))
        old, new = self.planes[at], f"N{self._next_made_up()}\\'"
        self.planes[at] = new
        model, year = self.rng.choice(HOSTILE_TEXTS), self.rng.choice((None, 0, 1999, 65535))
        statement = "UPDATE planes SET tailnum = %s, model = %s, year = %s WHERE tailnum = %s"
        return [("key_changes", statement, (new, model, year, old))]

    def _next_made_up(self) -> int:
        self._made_up += 1
        return self._made_up

    def _texts(self) -> list[Statement]:
        text = self.rng.choice(HOSTILE_TEXTS)
        if self.airports and self.rng.random() < 0.6:
            zone = self.rng.choice((None, text[:64]))
            return [
                (
                    "updates",
                    "UPDATE airports SET name = %s, tzone = %s WHERE faa = %s",
                    (text, zone, self.rng.choice(self.airports)),
                )
            ]
        return [("updates", "UPDATE airlines SET name = %s WHERE carrier = %s", (text, self.rng.choice(self.airlines)))]

    def _move_weather(self) -> list[Statement]:
        """Change the second column of a composite key."""
        if not self.weather:
            return self._insert_flights()
        at = self.rng.randrange(len(self.weather))
        origin, old = self.weather[at]
        new = _MADE_UP_HOUR + datetime.timedelta(seconds=self._next_made_up())
        self.weather[at] = (origin, new)
        return [
            (
                "key_changes",
                "UPDATE weather SET time_hour = %s WHERE origin = %s AND time_hour = %s",
                (new, origin, old),
            )
        ]

    def _update_weather(self) -> list[Statement]:
        if not self.weather:
            return self._insert_flights()
        rng, key = self.rng, self.rng.choice(self.weather)
        values = (
            rng.choice((None, rng.randrange(-9999, 9999) / 100)), rng.choice((None, rng.uniform(0, 100), 1e-300,
            -0.0, 0.1)),
            rng.choice((None, rng.uniform(0, 3), 0.1, 1e30)),
        )  # fmt: skip
        statement = "UPDATE weather SET temp = %s, wind_gust = %s, precip = %s WHERE origin = %s AND time_hour = %s"
        return [("updates", statement, (*values, *key))]

    def _many_rows(self) -> list[Statement]:
        count = min(40, len(self.ids))
        return [*(self._update(key) for key in self.rng.sample(self.ids, count)), *self._insert_flights()]

    def _phantoms(self) -> list[Statement]:
        """Changes to be rolled back: the keys of the plan stay as they are."""
        hot = self.ids[:_HOT]
        return [self._insert(self._new_id()), *(self._update(key) for key in hot), *(self._delete(key) for key in hot)]
