"""Events of a resource on the cluster; the same one again only counts. Which events there are stands in the domain.

They are core/v1 ones: events.k8s.io/v1 allows no lastTimestamp, and by that alone kubectl describe sorts them.
"""

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
_LONGEST_MESSAGE: Final = 1024
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
    count = max(int(held.get("count") or 1), 1) + 1
    await api.merge(kinds.EVENTS, namespace, name, {"count": count, "lastTimestamp": _seconds(now)})


def event_of(owner: Owner, event: Event, instance: str, now: datetime) -> JSON:
    """The object of an event; equal events of a resource have equal names. Pure."""
    told = json.dumps([owner.uid, event.type, event.reason, event.message])
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name[:_LONGEST_NAME].rstrip('-.')}.{digest}", "namespace": owner.namespace},
        "eventTime": _micro(now),
        "firstTimestamp": _seconds(now),
        "lastTimestamp": _seconds(now),
        "count": 1,
        "type": event.type,
        "reason": event.reason,
        "action": event.reason,
        "message": _cut(event.message),
        "source": {"component": CONTROLLER},
        "reportingComponent": CONTROLLER,
        "reportingInstance": instance[:128],
        "involvedObject": {
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "namespace": owner.namespace,
            "name": owner.name,
            "uid": owner.uid,
        },
    }


def _cut(text: str) -> str:
    """At most as many bytes as a message may have."""
    raw = text.encode()
    return text if len(raw) <= _LONGEST_MESSAGE else raw[: _LONGEST_MESSAGE - 3].decode(errors="ignore") + "…"


def _micro(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
