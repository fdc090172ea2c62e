"""Events of a resource on the cluster; the same one again only counts. Which events there are stands in the domain."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Final

from whimbrel_api.base import GROUP
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.errors import Outdated
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.api import JSON, Api
from whimbrel_operator.specs.names import Owner

CONTROLLER: Final = f"{GROUP}/operator"
_LONGEST_NOTE: Final = 1024
_LONGEST_NAME: Final = 200


async def record(api: Api, owner: Owner, event: Event, instance: str, now: datetime) -> None:
    """Make an event, or count it where it is there. `instance`: the operator that says so. Raises OperatorError."""
    body = event_of(owner, event, instance, now)
    try:
        await api.create(kinds.EVENTS, body)
    except Outdated:
        await _count(api, owner.namespace, body["metadata"]["name"], now)


async def _count(api: Api, namespace: str, name: str, now: datetime) -> None:
    held = await api.get(kinds.EVENTS, namespace, name)
    if held is None:
        return
    count = max(int((held.get("series") or {}).get("count", 1)), 1) + 1
    patch = {"series": {"count": count, "lastObservedTime": _micro(now)}}
    await api.merge(kinds.EVENTS, namespace, name, patch)


def event_of(owner: Owner, event: Event, instance: str, now: datetime) -> JSON:
    """The object of an event; equal events of a resource have equal names. Pure."""
    told = json.dumps([owner.uid, event.type, event.reason, event.message])
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name[:_LONGEST_NAME].rstrip('-.')}.{digest}", "namespace": owner.namespace},
        "eventTime": _micro(now),
        "type": event.type,
        "reason": event.reason,
        "action": event.reason,
        "note": _cut(event.message),
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
        "regarding": {
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "namespace": owner.namespace,
            "name": owner.name,
            "uid": owner.uid,
        },
    }


def _cut(text: str) -> str:
    """At most as many bytes as a note may have."""
    raw = text.encode()
    return text if len(raw) <= _LONGEST_NOTE else raw[: _LONGEST_NOTE - 3].decode(errors="ignore") + "…"


def _micro(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
