"""Where reading goes on after a batch: at the batch's own bookmark, or after the key of its last row."""

from collections.abc import Sequence

from whimbrel_worker.values.columns import Row, Table
from whimbrel_worker.values.keys import key_text


def bookmark_of(table: Table, batch: Sequence[Row]) -> tuple[str, ...]:
    """The lower bound for a reader that goes on after this batch, which holds a row or a bookmark.

    A source that does not read in key order (a DynamoDB Scan) gives its batches a `bookmark` of its own.
    """
    own: tuple[str, ...] | None = getattr(batch, "bookmark", None)
    return own if own is not None else key_text(table, table.key_of(batch[-1]))
