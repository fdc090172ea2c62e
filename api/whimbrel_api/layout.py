"""How DynamoDB's items stand in PolarDB's own tables, and what guards its log. What reads them stands elsewhere."""

import hashlib
from enum import StrEnum
from typing import Literal

from pydantic import Field

from whimbrel_api.base import Identifier, Model


class KeyColumn(Model):
    """A key column and its DynamoDB type. Written out, as the letter N alone is a boolean to many YAML readers."""

    name: Identifier = Field(description="The column's name.")
    type: Literal["String", "Number", "Binary"] = Field(description="What DynamoDB calls S, N and B.")


class Layout(Model):
    """How items stand in the server's tables: the document's column, the keys, and the rule for a table's name."""

    document_column: Identifier | None = Field(
        default=None, description="The column that holds the whole item; polardb_document when absent."
    )
    key_columns: list[KeyColumn] = Field(
        default=[],
        max_length=4,
        description="The partition key's column, then the sort key's, one for each type; by the attributes' names when "
        "empty.",
    )
    table_rule: str = Field(
        default="",
        max_length=200,
        description="How the server calls a table: schema.prefix{table}suffix; public.{table} when empty.",
    )


class OnTruncate(StrEnum):
    """What becomes of a TRUNCATE on the server, which names no items."""

    STOP = "Stop"
    SKIP = "Skip"


class OnLimit(StrEnum):
    """What becomes of a slot that holds back more of the log than it may."""

    DROP_SLOT = "DropSlot"
    REPORT = "Report"


class SlotGuard(Model):
    """How much log a slot may hold back, in bytes. `DropSlot` saves the server's disk and ends the way back."""

    warn_bytes: int = Field(default=1 << 30, ge=1 << 20, description="From here on a condition and an event warn.")
    limit_bytes: int = Field(default=10 << 30, ge=1 << 20, description="From here on `onLimit` is done.")
    on_limit: OnLimit = Field(
        default=OnLimit.DROP_SLOT,
        description="What is done at `limitBytes`: drop the slot, which ends the way back, or warn only.",
    )


def own_name(owner: str) -> str:
    """The name of a slot or publication that can only be this owner's; `owner` such as namespace/name/uid."""
    return f"whimbrel_{hashlib.sha256(owner.encode()).hexdigest()[:16]}"
