"""Says in a resource's status why nothing can be decided or done for it: a spec that no type can read, a refusal."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from whimbrel_api.base import GROUP, VERSION
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.errors import (
    Forbidden,
    OperatorError,
    Refused,
    ResourceUnreadable,
    StateUnreadable,
    TaskTooLarge,
)
from whimbrel_operator.runtime.kubernetes.api import Api, Kind
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.specs.names import Owner

DEFECT: Final = "OperatorDefect"
# The first that fits.
REASONS: Final[Mapping[type[OperatorError], str]] = {
    ResourceUnreadable: "InvalidSpec",
    TaskTooLarge: "TaskTooLarge",
    StateUnreadable: "StateUnreadable",
    Forbidden: "Forbidden",
    Refused: "Refused",
}
# Every kind begins so; while it stands there, the schema lets source and target be corrected.
_FIRST_PHASE: Final = "Pending"
_TYPES: Final = ("Stalled", "Reconciling")
_LONGEST: Final = 32768


async def refuse(api: Api, key: Key, error: OperatorError) -> tuple[Owner, Event] | None:
    """Set the condition Stalled, unless it says the same; the rest of the status stays. Raises OperatorError.

    Returns the Event to be told, where the reason is news and no other Event says so.
    """
    kind = Kind(f"apis/{GROUP}/{VERSION}", f"{key.kind.lower()}s")
    found = await api.get(kind, key.namespace, key.name)
    if found is None:
        return None
    reason = next((word for kind, word in REASONS.items() if isinstance(error, kind)), DEFECT)
    status = stalled(found, reason, str(error), datetime.now(UTC))
    if status != found.get("status"):
        await api.replace(kind, key.namespace, key.name, found | {"status": status}, sub="status")
    if error.told or _says(found, reason):
        return None
    owner = Owner(key.kind, key.namespace, key.name, str(found["metadata"]["uid"]))
    return owner, Event("Warning", reason, str(error))


def _says(resource: Mapping[str, Any], reason: str) -> bool:
    """Whether it is Stalled for that reason already."""
    told = (resource.get("status") or {}).get("conditions") or []
    return any(
        isinstance(each, dict)
        and (each.get("type"), each.get("status"), each.get("reason")) == ("Stalled", "True", reason)
        for each in told
    )


def stalled(resource: Mapping[str, Any], reason: str, message: str, now: datetime) -> dict[str, Any]:
    """The status of a resource as JSON with Stalled and Reconciling said anew. Pure."""
    generation = resource["metadata"].get("generation", 0)
    status: dict[str, Any] = {"phase": _FIRST_PHASE} | dict(resource.get("status") or {})
    known = {each["type"]: each for each in status.get("conditions") or [] if isinstance(each, dict) and "type" in each}
    others = [each for each in known.values() if each["type"] not in _TYPES]
    common = {"reason": reason, "message": message[:_LONGEST], "observedGeneration": generation}
    said = [
        {"type": kind, "status": word, "lastTransitionTime": _since(known.get(kind, {}), word, now), **common}
        for kind, word in zip(_TYPES, ("True", "False"), strict=True)
    ]
    return status | {"observedGeneration": generation, "conditions": [*others, *said]}


def _since(before: Mapping[str, Any], word: str, now: datetime) -> str:
    """Since when the condition says so: kept while its status is the same."""
    if before.get("status") == word and "lastTransitionTime" in before:
        return str(before["lastTransitionTime"])
    return now.isoformat(timespec="seconds").replace("+00:00", "Z")
