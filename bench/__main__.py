"""The benches in one run: a report on standard output, with the goals beside what was found; progress on standard
error. What is measured stands in the modules of each bench."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence

from bench import binlog_decode, dynamodb_client, goals, snapshot, start, stream
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.dynamodb.local import dynamodb_server
from whimbrel_testbed.mysql import mysql_server
from whimbrel_testbed.postgres import postgres_server

_ROWS = 2_000_000
_CHANGES = 100_000
_PEER_ROWS = 20_000
_ITEMS = 20_000
_QUIET_LOAD = 1.0

Section = tuple[str, list[goals.Goal]]


def _snapshot(rows: int, _changes: int) -> Section:
    with snapshot.servers() as (mysql, postgres):
        result = snapshot.measure(mysql, postgres, rows)
    return snapshot.table(result), goals.of_snapshot(result)


def _decode(_rows: int, changes: int) -> Section:
    with mysql_server() as mysql:
        results = binlog_decode.measure(mysql, changes, min(changes, _PEER_ROWS))
    return binlog_decode.table(results), goals.of_decoding(results)


def _stream(_rows: int, changes: int) -> Section:
    with mysql_server() as mysql, postgres_server() as postgres:
        result = stream.measure(mysql, postgres, changes)
    return stream.table(result), goals.of_stream(result)


def _items(rows: int, _changes: int) -> Section:
    with dynamodb_server() as server:
        results = dynamodb_client.measure(server, min(rows, _ITEMS))
    return dynamodb_client.table(results), goals.of_items(results)


def _start(_rows: int, _changes: int) -> Section:
    starts = start.here()
    return start.table(starts), goals.of_start(starts)


_BENCHES: dict[str, tuple[str, Callable[[int, int], Section]]] = {
    "snapshot": ("Snapshot, MySQL to PostgreSQL", _snapshot),
    "decode": ("Decoding the change log", _decode),
    "stream": ("Change stream, MySQL to PostgreSQL", _stream),
    "items": ("Calls of DynamoDB", _items),
    "start": ("Start of operator and workers", _start),
}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=_ROWS, help="rows of the snapshot (default: %(default)s)")
    parser.add_argument("--changes", type=int, default=_CHANGES, help="changes of the stream (default: %(default)s)")
    parser.add_argument("--only", type=_names, default=list(_BENCHES), help=f"some of {','.join(_BENCHES)}")
    arguments = parser.parse_args(argv)
    if min(arguments.rows, arguments.changes) < 1000:
        parser.error("--rows and --changes must be 1000 or more")
    return arguments


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in _BENCHES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(_BENCHES)}")
    return names


def _heading(rows: int, changes: int) -> list[str]:
    load = os.getloadavg()[0]
    machine = f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    lines = [f"{machine}, load average at the start {load:.2f}; {rows:,} rows, {changes:,} changes"]
    if load > _QUIET_LOAD:
        lines.append("warning: something else keeps this machine busy; rates and lags suffer, and CPU seconds a little")
    if rows < _ROWS or changes < _CHANGES:
        lines.append(f"warning: the goals are meant for {_ROWS:,} rows and {_CHANGES:,} changes: start-up weighs more")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen benches and print each as soon as it is there; 1 where the test bed cannot give its servers."""
    arguments = _arguments(argv)
    print("\n".join(_heading(arguments.rows, arguments.changes)), flush=True)
    found: list[goals.Goal] = []
    try:
        for name in arguments.only:
            title, measure = _BENCHES[name]
            print(f"bench: {name} …", file=sys.stderr, flush=True)
            lines, reached = measure(arguments.rows, arguments.changes)
            print(f"\n{title}\n{lines}", *(goal.line() for goal in reached), sep="\n", flush=True)
            found += reached
    except TestbedError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\n{sum(goal.reached for goal in found)} of {len(found)} goals reached")
    return 0


if __name__ == "__main__":
    sys.exit(main())
