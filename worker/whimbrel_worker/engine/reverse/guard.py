"""Judges how much of its log a source keeps for us. Pure; what is done about it, the task does."""

from typing import Final

from whimbrel_api.layout import SlotGuard
from whimbrel_worker.engine.reverse_ports import SlotState

FRESH_SECONDS: Final = 15.0
"""After so long nobody knows any more how the slot is."""


def size(number: int) -> str:
    """Bytes for a reader."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def known(state: SlotState, age_seconds: float) -> SlotState:
    """What is still known of a slot that was looked at so long ago: all of it, or its name alone."""
    return state if age_seconds <= FRESH_SECONDS else SlotState(state.name, False, "", None, 0)


def is_over(state: SlotState, guard: SlotGuard) -> bool:
    """Whether the limit is reached."""
    return (state.retained_bytes or 0) >= guard.limit_bytes


def warnings(state: SlotState, guard: SlotGuard) -> list[str]:
    """What a person should know of the slot."""
    found: list[str] = []
    retained = state.retained_bytes or 0
    if is_over(state, guard):
        found.append(
            f"slot {state.name} holds back {size(retained)} of the source's log, over guard.limitBytes "
            f"({size(guard.limit_bytes)}): free its disk or resume the reverse sync"
        )
    elif retained >= guard.warn_bytes:
        found.append(
            f"slot {state.name} holds back {size(retained)} of the source's log, over guard.warnBytes "
            f"({size(guard.warn_bytes)}); at {size(guard.limit_bytes)} guard.onLimit acts: see why it falls behind"
        )
    if state.wal_status == "unreserved":
        found.append(
            f"slot {state.name} may be lost at the source's next checkpoint (wal_status unreserved): raise "
            "max_slot_wal_keep_size on the source"
        )
    return found
