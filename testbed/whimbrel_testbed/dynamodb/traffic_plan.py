"""What the heavy traffic does to the flights tables: calls chosen by a seed; it talks to no server."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from whimbrel_testbed.dynamodb.flights import TABLES, Item

Kind: TypeAlias = Literal["puts", "updates", "removes", "deletes"]
Key: TypeAlias = tuple[str, ...]
"""The values of a table's key attributes in their order; numbers as DynamoDB writes them."""

HOT: Final = 3
"""How many keys of each table are changed again and again, and never deleted."""

HOSTILE_TEXTS: Final = (
    "plain", "", " leading and trailing ", "tab\tin it", "line\nfeed", "back\\slash", "it's \"quoted\"",
    "{\"S\":\"x\"}", "4 bytes: \N{BIRD}\N{AIRPLANE DEPARTURE}", "ünïcödé ß İ ı", "\x01\x7f controls",
    "e\N{COMBINING ACUTE ACCENT} combined", "right to left \N{RIGHT-TO-LEFT OVERRIDE}", "</tag>&amp;",
    "%s {} $1 :x #y", "NULL", "x" * 2000,
)  # fmt: skip
HOSTILE_NUMBERS: Final = (
    "0", "-1", "12345678901234567890123456789012345678", "0.00000000000000000000000000000000000001", "1E+125",
    "-9.9999999999999999999999999999999999999E+125", "1E-130", "3.14159265358979323846264338327950288",
)  # fmt: skip
_VALUES: Final[tuple[Item, ...]] = (
    *({"S": text} for text in HOSTILE_TEXTS), *({"N": number} for number in HOSTILE_NUMBERS),
    {"NULL": True}, {"BOOL": True}, {"BOOL": False}, {"B": b""}, {"B": bytes(range(256))}, {"L": []}, {"M": {}},
    {"SS": ["b", "a", "ä"]}, {"NS": ["10", "9", "-0.5"]}, {"BS": [b"\x00", b"\xff"]},
    {"L": [{"S": "1"}, {"N": "1"}, {"L": [{"M": {"deep": {"L": [{"NULL": True}]}}}]}]},
    {"M": {"name": {"S": "reserved"}, "a.b": {"N": "1"}, "#c": {"BOOL": True}}},
)  # fmt: skip
_ATTRIBUTES: Final = ("name", "value", "status", "data", "note", "a.b", "with space", "größe", ":colon", "#hash")
"""Names that the traffic sets and removes, reserved words and characters of expressions among them."""


@dataclass(frozen=True)
class Change:
    """One call: botocore's name of it, its parameters, and how many of its items count as which kind of change."""

    operation: Literal["put_item", "update_item", "delete_item", "batch_write_item", "transact_write_items"]
    parameters: dict[str, Any]
    counts: Mapping[Kind, int]


@dataclass
class HeavyPlan:
    """The keys known to be in the tables, by the tables' names without the prefix, and the choice of what comes next.

    What is chosen is taken as done. A plan over the same keys and of the same seed makes the same choices.
    """

    rng: random.Random
    keys: dict[str, list[Key]]
    prefix: str = ""
    freed: dict[str, list[Key]] = field(default_factory=dict)
    _made_up: int = field(init=False)

    def __post_init__(self) -> None:
        for table in TABLES:
            self.keys.setdefault(table.name, [])
            self.freed.setdefault(table.name, [])
        # A plan made later over the same tables must not make up the keys of an earlier one again.
        self._made_up = self.rng.randrange(1, 10**9)

    def next_change(self) -> Change:
        """Choose the next call."""
        recipes: tuple[tuple[Callable[[], Change], int], ...] = (
            (self._put_new, 15), (self._put_over, 10), (self._put_again, 3), (self._update, 25), (self._hot, 15),
            (self._remove, 12), (self._delete, 10), (self._back, 6), (self._batch, 3), (self._transaction, 3),
        )  # fmt: skip
        recipe = self.rng.choices([made for made, _ in recipes], [weight for _, weight in recipes])[0]
        return recipe()

    def _table(self) -> str:
        # Airlines and airports are small and change by updates; flights is where most happens.
        return self.rng.choices([table.name for table in TABLES], [3, 5, 10, 15, 60])[0]

    def _put_new(self) -> Change:
        table = self._table()
        return self._put(table, self._new_key(table))

    def _put_over(self) -> Change:
        """An item that is there becomes another one, without most of its attributes."""
        table = self._table()
        return self._put(table, self._known(table) or self._new_key(table))

    def _put_again(self) -> Change:
        """An item is written as it may be already: that makes no record in the stream."""
        table = self._table()
        key = self._known(table) or self._new_key(table)
        return Change("put_item", {**self._named(table), "Item": self._key(table, key)}, {"puts": 1})

    def _update(self) -> Change:
        table = self._table()
        return self._set(table, self._known(table) or self._new_key(table))

    def _hot(self) -> Change:
        table = self._table()
        hot = self.keys[table][:HOT]
        return self._set(table, self.rng.choice(hot) if hot else self._new_key(table))

    def _remove(self) -> Change:
        table = self._table()
        names = self.rng.sample(_ATTRIBUTES, self.rng.choice((1, 2, 5)))
        places = {f"#a{number}": name for number, name in enumerate(names)}
        expression = {"UpdateExpression": "REMOVE " + ", ".join(places), "ExpressionAttributeNames": places}
        key = self._known(table) or self._new_key(table)
        return Change("update_item", {**self._at(table, key), **expression}, {"removes": 1})

    def _delete(self) -> Change:
        table = self._table()
        key = self._taken(table)
        if key is None:
            return self._put(table, self._new_key(table))
        return Change("delete_item", self._at(table, key), {"deletes": 1})

    def _back(self) -> Change:
        """An item comes back under a key that was deleted."""
        table = self._table()
        if not self.freed[table]:
            return self._put(table, self._new_key(table))
        key = self.freed[table].pop(self.rng.randrange(len(self.freed[table])))
        self.keys[table].append(key)
        return self._put(table, key)

    def _batch(self) -> Change:
        """Puts and deletes of several tables; no key comes twice."""
        gone = self._taken("flights")
        requests: dict[str, list[dict[str, Any]]] = {}
        for _ in range(self.rng.randrange(2, 25)):
            table = self._table()
            item = {**self._key(table, self._new_key(table)), **self._attributes()}
            requests.setdefault(self.prefix + table, []).append({"PutRequest": {"Item": item}})
        if gone is not None:
            delete = {"DeleteRequest": {"Key": self._key("flights", gone)}}
            requests.setdefault(f"{self.prefix}flights", []).append(delete)
        puts = sum(len(entries) for entries in requests.values()) - (gone is not None)
        return Change("batch_write_item", {"RequestItems": requests}, {"puts": puts, "deletes": int(gone is not None)})

    def _transaction(self) -> Change:
        """An update, a new item and a delete, all or nothing."""
        key, gone = self._known("flights") or self._new_key("flights"), self._taken("flights")
        items: list[dict[str, Any]] = [
            {"Update": self._set("flights", key).parameters},
            {"Put": self._put("planes", self._new_key("planes")).parameters},
        ]
        if gone is not None and gone != key:
            items.append({"Delete": self._at("flights", gone)})
        counts: dict[Kind, int] = {"updates": 1, "puts": 1, "deletes": len(items) - 2}
        return Change("transact_write_items", {"TransactItems": items}, counts)

    def _put(self, table: str, key: Key) -> Change:
        item = {**self._key(table, key), **self._attributes()}
        return Change("put_item", {**self._named(table), "Item": item}, {"puts": 1})

    def _set(self, table: str, key: Key) -> Change:
        set_ = self._attributes(at_least=1)
        names = {f"#a{number}": name for number, name in enumerate(set_)}
        values = {f":a{number}": value for number, value in enumerate(set_.values())}
        parts = ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
        parameters = {
            **self._at(table, key), "UpdateExpression": f"SET {parts} ADD #touched :one",
            "ExpressionAttributeNames": {**names, "#touched": "touched"},
            "ExpressionAttributeValues": {**values, ":one": {"N": "1"}},
        }  # fmt: skip
        return Change("update_item", parameters, {"updates": 1})

    def _attributes(self, at_least: int = 0) -> Item:
        names = self.rng.sample(_ATTRIBUTES, self.rng.randrange(at_least, 5))
        return {name: self.rng.choice(_VALUES) for name in names}

    def _known(self, table: str) -> Key | None:
        keys = self.keys[table]
        return self.rng.choice(keys) if keys else None

    def _taken(self, table: str) -> Key | None:
        """Take a key out of the known ones, never a hot one."""
        keys = self.keys[table]
        if len(keys) <= HOT:
            return None
        at = self.rng.randrange(HOT, len(keys))
        keys[at], keys[-1] = keys[-1], keys[at]
        self.freed[table].append(keys[-1])
        return keys.pop()

    def _new_key(self, table: str) -> Key:
        self._made_up += 1
        types = tuple(_key_types(table))
        key = tuple(str(self._made_up) if kind == "N" else f"new {self._made_up} ß'\\\"" for kind in types)
        self.keys[table].append(key)
        return key

    def _named(self, table: str) -> dict[str, Any]:
        return {"TableName": self.prefix + table}

    def _at(self, table: str, key: Key) -> dict[str, Any]:
        return {**self._named(table), "Key": self._key(table, key)}

    def _key(self, table: str, key: Key) -> Item:
        return {name: {kind: value} for (name, kind), value in zip(_KEYS[table].items(), key, strict=True)}


_KEYS: Final = {table.name: table.keys for table in TABLES}


def _key_types(table: str) -> tuple[str, ...]:
    return tuple(_KEYS[table].values())
