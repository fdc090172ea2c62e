"""What is kept of a way back on the DynamoDB side, as text. Pure."""

import orjson

from whimbrel_worker.endpoints.polardb.log.lsn import format_lsn, parse_lsn
from whimbrel_worker.engine.reverse_ports import Kept
from whimbrel_worker.errors import ConfigurationError


def kept_text(kept: Kept) -> str:
    """As JSON: owner, log, the position applied, and those of tables that are behind."""
    behind = {table: format_lsn(lsn) for table, lsn in kept.behind.items()}
    content = {"owner": kept.owner, "log": kept.log, "applied": format_lsn(kept.applied), "behind": behind}
    return orjson.dumps(content).decode()


def parse_kept(text: str) -> Kept | None:
    """What was kept; None for nothing. Raises ConfigurationError for what cannot be read."""
    if not text:
        return None
    try:
        found = orjson.loads(text)
        behind = {str(table): parse_lsn(lsn) for table, lsn in found["behind"].items()}
        return Kept(str(found["owner"]), str(found["log"]), parse_lsn(found["applied"]), behind)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            "the kept position of the reverse sync cannot be read",
            where="table whimbrel-control, entry worker#reverse#00000",
            why=f"{text[:80]!r} is not what this version writes",
            todo="go on with the version of Whimbrel that wrote it, or delete the reverse sync and make it anew after "
            "a full comparison",
        ) from None
