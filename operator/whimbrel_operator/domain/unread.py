"""What was written to the target when nothing flowed back any more, in words. Which worker looks, others decide."""

from whimbrel_api.reports import UnreadLog

WRITTEN_AFTER_ROLLBACK = "WrittenAfterRollback"
_SHOWN = 5


def words(found: UnreadLog) -> str:
    """What stood in the slot when it was dropped after a rollback, and what to do."""
    then = (
        "find out who still writes to the target and stop it; list what differs with a Validation of both sides, and "
        "carry it over to the source by hand before the next cutover"
    )
    if not found.changes:
        why = found.unknown or "its log could not be looked at"
        return f"whether the target was written to after the rollback had held it is not known: {why}; {then}"
    tables = ", ".join(found.tables[:_SHOWN])
    others = f" and {len(found.tables) - _SHOWN} more" if len(found.tables) > _SHOWN else ""
    count = f"at least {found.changes}" if found.more else f"{found.changes}"
    return (
        f"{count} changes of {tables}{others}, the first committed at {found.first}, were written to the target after "
        f"the rollback had held it, and are not in the source; {then}"
    )
