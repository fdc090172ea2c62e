"""Whether a task's change log is divided into shards, and what is done for it around the copy. Following it: elsewhere.

Streams are enabled and all shards' positions kept before the first item is read; a stream that was enabled here is
put back at the end.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whimbrel_api.migration import Mode
from whimbrel_worker.endpoints.dynamodb.source import DynamoDBSource
from whimbrel_worker.endpoints.dynamodb.target import DynamoDBTarget
from whimbrel_worker.engine.ports import ControlStore
from whimbrel_worker.engine.shard_ports import ShardState
from whimbrel_worker.errors import WorkerError
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.values.columns import Table

_log = logging.getLogger(__name__)
ENABLED, LEFT = "streams-enabled", "left-undone"


@dataclass(frozen=True, slots=True)
class ItemEnds:
    """Both ends of an item pair; implements engine.shard_ports.ShardedEnds."""

    source: DynamoDBSource
    target: DynamoDBTarget


def sharded_ends(context: TaskContext) -> ItemEnds | None:
    """Both ends, or None where the log is one."""
    source, target = context.source, context.target
    if isinstance(source, DynamoDBSource) and isinstance(target, DynamoDBTarget):
        return ItemEnds(source, target)
    return None


def keep_start(context: TaskContext, tables: Sequence[Table]) -> None:
    """Enable missing streams and keep where each shard stands, once; what an earlier run kept stays.

    A shard that was kept before a crash keeps its earlier position, which costs time and loses nothing.
    """
    ends = sharded_ends(context)
    if ends is None or context.file.mode is Mode.SNAPSHOT_ONLY:
        return
    control = context.target.control()
    enabled = ends.source.prepare_streams(tables, before=lambda names: remember_enabled(control, names))
    for name in enabled:
        _log.info("the stream of table %s was enabled; it is disabled again at the end", name, extra={"table": name})
    record = control.record()
    if record.start_position:
        return
    began = ends.source.position()
    ends.target.shards(record.epoch).add(ends.source.capture(tables))
    control.fix_start_position(began)


def remember_enabled(control: ControlStore, names: Sequence[str]) -> None:
    """Write down whose streams are about to be enabled, so that a crash leaves none that nobody puts back."""
    known = enabled_here(control)
    if set(names) - known:
        control.journal(ENABLED, json.dumps(sorted(known | set(names))))


def enabled_here(control: ControlStore) -> set[str]:
    """The tables whose streams this migration enabled."""
    entry = control.record().last(ENABLED)
    return set(json.loads(entry.detail)) if entry is not None else set()


def settle(context: TaskContext, *, switched: bool) -> None:
    """Disable the streams that were enabled here and, once the traffic has moved, switch time to live on at the target.

    Both are safe to repeat. What cannot be done does not undo the switch: the journal and the log name it.
    """
    ends = sharded_ends(context)
    if ends is None:
        return
    control = context.target.control()
    names = sorted(enabled_here(control))
    undone = _attempt(f"disable the streams of {', '.join(names)}", lambda: ends.source.restore_streams(names))
    if switched:
        undone += _attempt("switch time to live on at the target", lambda: _enable_time_to_live(ends))
    if undone:
        control.journal(LEFT, "; ".join(undone)[:1024])


def _enable_time_to_live(ends: ItemEnds) -> None:
    schema = ends.target.schema()
    for table in ends.source.discover()[0]:
        schema.enable_time_to_live(table)


def _attempt(what: str, action: Callable[[], None]) -> list[str]:
    """What could not be done, for the journal."""
    try:
        action()
    except WorkerError as error:
        _log.warning("left to do by hand: %s: %s", what, error)
        return [what]
    return []


def applied_through(context: TaskContext) -> str:
    """Until when the target holds every change, as a position; empty where nothing is proven or no shard is kept."""
    ends = sharded_ends(context)
    rows = ends.target.shards().all() if ends is not None else []
    open_rows = [row.read_to for row in rows if row.state is not ShardState.DONE]
    return ends.source.moment(min(open_rows)) if ends is not None and open_rows and min(open_rows) > 0 else ""
