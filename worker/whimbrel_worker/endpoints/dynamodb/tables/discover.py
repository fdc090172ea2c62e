"""From the descriptions of tables to the tables that move: selection, overrides, keys; and what is not carried.
Pure."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from whimbrel_api.migration import Mode, TableOverride, Tables
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described, definition_of
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.values.columns import Column, Kind, Table
from whimbrel_worker.values.selection import is_wanted, override_of, unmatched

OWN_TABLES: Final = "whimbrel-"
"""Tables whose names begin so are ours, on either side."""
IMAGES: Final = ("NEW_AND_OLD_IMAGES", "NEW_IMAGE")
"""View types whose records hold the whole new item."""
_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_READABLE: Final = ("ACTIVE", "UPDATING")
_GOING: Final = ("DELETING",)
_NAMES_SHOWN: Final = 5


def selected(names: Sequence[str], wanted: Tables) -> list[str]:
    """The names that move: those that the manifest selects, without our own."""
    return [name for name in names if not name.startswith(OWN_TABLES) and is_wanted(name, wanted)]


def discover(found: Sequence[Described], wanted: Tables, mode: Mode) -> tuple[list[Table], list[Problem]]:
    """The tables that can move, and all problems. `found` holds selected tables only."""
    tables: list[Table] = []
    problems: list[Problem] = []
    for described in found:
        override = override_of(described.name, wanted)
        judged = [*_state_problems(described), *_override_problems(described, override, mode)]
        problems += judged
        if described.status not in _GOING and not any(problem.fatal for problem in judged):
            tables.append(item_table(described, override))
    problems += _selection_problems([described.name for described in found], wanted)
    problems += _collisions(tables)
    problems += _not_carried(found)
    return tables, problems


def item_table(described: Described, override: TableOverride | None = None) -> Table:
    """A table of items: the key attributes, then the whole item."""
    key = tuple(Column(name, Kind.ATTRIBUTE, kind, kind, nullable=False, collated=True) for name, kind in described.key)
    return Table(
        source_schema="",
        source_name=described.name,
        target_schema="",
        target_name=(override.rename_to if override else "") or described.name,
        columns=(*key, Column("item", Kind.ITEM, "item", "item", nullable=False)),
        key=tuple(range(len(key))),
        rows_estimate=described.items,
        definition=definition_of(described),
    )


# --- single tables ---


def _state_problems(described: Described) -> Iterator[Problem]:
    if described.status in _GOING:
        yield Problem(
            f"the table is left out: it is {described.status}",
            where=described.name,
            todo="nothing, if it is meant to go; else exclude it under tables.exclude to lose this warning",
            fatal=False,
        )
    elif described.status not in _READABLE:
        yield Problem(
            f"the table is {described.status} and cannot be read",
            where=described.name,
            why="only ACTIVE tables, or those being changed, answer a Scan",
            todo="wait until it is ACTIVE, bring it back (archived, or its encryption key is gone), or exclude it",
        )
    for index in described.indexes("GlobalSecondaryIndexes"):
        if index.get("IndexStatus", "ACTIVE") != "ACTIVE":
            yield Problem(
                f"the index {index['IndexName']} is {index['IndexStatus']}; the target gets it as it is described now",
                where=described.name,
                fatal=False,
            )


def _override_problems(described: Described, override: TableOverride | None, mode: Mode) -> Iterator[Problem]:
    if override is None:
        return
    if override.primary_key or override.columns:
        yield Problem(
            "tables.overrides sets primaryKey or columns for a table of items",
            where=described.name,
            why="items have no columns, and an item's key cannot be another one",
            todo="remove primaryKey and columns from the override; renameTo and filter are possible",
        )
    name = override.rename_to
    if name and (not _NAME.fullmatch(name) or name.startswith(OWN_TABLES)):
        yield Problem(
            f"the target's table cannot be called {name!r}",
            where=described.name,
            why="a name has 3 to 255 letters, digits, dots, dashes and underscores, and "
            f"{OWN_TABLES}… is kept for Whimbrel",
            todo="give another name under tables.overrides[].renameTo",
        )
    if override.filter is not None:
        yield from _filter_problems(described, override.filter.values, mode)


def _filter_problems(described: Described, values: dict[str, str], mode: Mode) -> Iterator[Problem]:
    for name, text in values.items():
        if not _is_attribute(text):
            yield Problem(
                f"the filter's value {name} is no DynamoDB-typed JSON",
                where=described.name,
                why="it must be an object with one type, as text",
                todo="""write it as '{"S": "open"}' or '{"N": "42"}' under tables.overrides[].filter.values""",
            )
    if mode is Mode.SNAPSHOT_AND_STREAM:
        yield Problem(
            "the filter holds for the copy only",
            where=described.name,
            why="the stream carries every change, so items that do not fit the filter arrive once they are written, "
            "and items that stop fitting it stay",
            todo="nothing, if that is meant; else copy once with spec.mode SnapshotOnly",
            fatal=False,
        )


def _is_attribute(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and len(value) == 1


# --- all of them ---


def _selection_problems(names: Sequence[str], wanted: Tables) -> Iterator[Problem]:
    for glob in unmatched(names, wanted):
        yield Problem(
            f"nothing matches {glob} of tables.include",
            where=glob,
            why=f"ListTables shows no such table, it is excluded, or it is one of Whimbrel's own ({OWN_TABLES}…)",
            todo="correct the pattern, the region or the account",
        )
    if not names and not wanted.include:
        yield Problem(
            "the source has no table to move",
            why="ListTables shows none, or all are excluded",
            todo="check the region, the account and tables.exclude",
        )


def _collisions(tables: Sequence[Table]) -> Iterator[Problem]:
    seen: dict[str, Table] = {}
    for table in tables:
        other = seen.setdefault(table.target_name, table)
        if other is not table:
            yield Problem(
                f"{other.name} and {table.name} both lead to {table.target_name}",
                where=table.name,
                why="two source tables cannot share a target table",
                todo="give one of them another name under tables.overrides[].renameTo",
            )


def _not_carried(found: Sequence[Described]) -> Iterator[Problem]:
    marks = {
        "deletion protection": "DeletionProtectionEnabled",
        "a table class": "TableClassSummary",
        "a key of their own for encryption": "SSEDescription",
    }
    for what, member in marks.items():
        names = [described.name for described in found if described.description.get(member)]
        if names:
            yield Problem(f"{what} is not carried ({len(names)}): {some(names)}", fatal=False)
    yield from _replicated(found)


def _replicated(found: Sequence[Described]) -> Iterator[Problem]:
    regions = Counter(
        str(replica.get("RegionName")) for described in found for replica in described.description.get("Replicas") or []
    )
    if regions:
        names = [described.name for described in found if described.description.get("Replicas")]
        yield Problem(
            f"tables are replicated to {', '.join(sorted(regions))} ({len(names)}): {some(names)}",
            why="only this region's replica is read; writes to the others arrive here when DynamoDB has replicated "
            "them, and deletes by time to live in another region are not marked as such",
            todo="freeze the writes in every region at the cutover",
            fatal=False,
        )


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
