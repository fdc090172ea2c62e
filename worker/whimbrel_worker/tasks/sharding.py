"""Whether a task's change log is divided into shards, and what is done for it around the copy. Following it: elsewhere.

Streams are enabled and all shards' positions kept before the first item is read; a stream that was enabled here is
put back at the end.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel_api.migration import Mode
from whimbrel_worker.endpoints.dynamodb.source import DynamoDBSource
from whimbrel_worker.endpoints.dynamodb.target import DynamoDBTarget
from whimbrel_worker.engine.ports import ControlStore
from whimbrel_worker.engine.shard_ports import ShardState
from whimbrel_worker.errors import ConfigurationError, Incompatible, Transient
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.values.columns import Table

_log = logging.getLogger(__name__)
ENABLED, RESTORED, LEFT = "streams-enabled", "streams-restored", "streams-left"


@dataclass(frozen=True, slots=True)
class ShardedEnds:
    """Both ends of a migration whose log is divided into shards."""

    source: DynamoDBSource
    target: DynamoDBTarget


def sharded_ends(context: TaskContext) -> ShardedEnds | None:
    """Both ends, or None where the log is one."""
    source, target = context.source, context.target
    if isinstance(source, DynamoDBSource) and isinstance(target, DynamoDBTarget):
        return ShardedEnds(source, target)
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
        _log.info("the stream of table %s was enabled; it is disabled again at the end", name)
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


def put_back(context: TaskContext) -> None:
    """Disable the streams that were enabled here. One that cannot be is named in the journal and the log, once."""
    ends = sharded_ends(context)
    if ends is None:
        return
    control = context.target.control()
    names, record = sorted(enabled_here(control)), control.record()
    if not names or record.last(RESTORED) is not None or record.last(LEFT) is not None:
        return
    try:
        ends.source.restore_streams(names)
    except (ConfigurationError, Incompatible, Transient) as error:
        _log.warning("streams of %s are left enabled: %s", ", ".join(names), error)
        control.journal(LEFT, json.dumps(names))
        return
    control.journal(RESTORED, json.dumps(names))


def applied_through(context: TaskContext) -> str:
    """Until when the target holds every change, as a position; empty where nothing is proven or no shard is kept."""
    ends = sharded_ends(context)
    rows = ends.target.shards().all() if ends is not None else []
    open_rows = [row.read_to for row in rows if row.state is not ShardState.DONE]
    return ends.source.moment(min(open_rows)) if ends is not None and open_rows and min(open_rows) > 0 else ""
