"""Events of a resource on the cluster; the same one again only counts. Which events there are stands in the domain.

They are core/v1 ones: events.k8s.io/v1 allows no lastTimestamp, and by that alone kubectl describe sorts them.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from whimbrel_api.base import GROUP
from whimbrel_api.repeats import Repeats
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.errors import OperatorError, Outdated
from whimbrel_operator.runtime.kubernetes import kinds
from whimbrel_operator.runtime.kubernetes.api import JSON, Api
from whimbrel_operator.runtime.kubernetes.flow import Flow, Passed
from whimbrel_operator.specs.names import Owner

LOG: Final = logging.getLogger("whimbrel.runtime")
CONTROLLER: Final = f"{GROUP}/operator"
_LONGEST_MESSAGE: Final = 1024
_LONGEST_NAME: Final = 200
_TRIES: Final = 2
_COMBINED: Final = "(one of many alike) "


class Recorder:
    """Writes Events for one operator process. `instance` names it in them. What cannot be written is logged."""

    def __init__(self, api: Api, instance: str, clock: Callable[[], datetime]) -> None:
        self._api, self._instance, self._clock = api, instance, clock
        self._flow, self._repeats = Flow(), Repeats()
        self._refused: dict[str, dict[str, str]] = {}

    async def tell(self, owner: Owner, event: Event) -> None:
        """Write an Event, within the bounds of Flow. No work waits for one that cannot be written."""
        now = self._clock()
        passed = self._flow.passed(owner.uid, event, now)
        if passed is None:
            return
        try:
            await record(self._api, owner, passed, self._instance, now)
        except OperatorError as error:
            line = "event %s could not be written: %s"
            self._repeats.log(LOG, logging.WARNING, (owner.uid, event.reason), line, event.reason, error)

    async def tell_refusal(self, owner: Owner, subject: str, event: Event) -> bool:
        """Write what the cluster refuses, once until it says something else or takes it. Whether it was news."""
        known = self._refused.setdefault(owner.uid, {})
        if known.get(subject) == event.message:
            return False
        known[subject] = event.message
        await self.tell(owner, event)
        return True

    def taken(self, uid: str, subject: str) -> None:
        """The cluster takes it: a refusal would be news."""
        self._refused.get(uid, {}).pop(subject, None)

    def forget(self, uid: str) -> None:
        """The resource is gone."""
        self._refused.pop(uid, None)


async def record(api: Api, owner: Owner, passed: Passed, instance: str, now: datetime) -> None:
    """Make an Event, or count it where it is there, also by another operator's word. Raises OperatorError."""
    body = event_of(owner, passed, instance, now)
    for _ in range(_TRIES):
        try:
            await api.create(kinds.EVENTS, body)
        except Outdated:
            if await _counted(api, body, passed):
                return
        else:
            return


async def _counted(api: Api, body: JSON, passed: Passed) -> bool:
    """Whether it was counted; the cluster may have forgotten it in between."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    held = await api.get(kinds.EVENTS, namespace, name)
    if held is None:
        return False
    newer = {"count": max(int(held.get("count") or 1), 1) + passed.times, "lastTimestamp": body["lastTimestamp"]}
    await api.merge(kinds.EVENTS, namespace, name, newer | ({"message": body["message"]} if passed.combined else {}))
    return True


def event_of(owner: Owner, passed: Passed, instance: str, now: datetime) -> JSON:
    """The object of an event; equal events of a resource have equal names, and so have those taken together. Pure."""
    event, message = passed.event, passed.event.message
    told = json.dumps([owner.uid, event.type, event.reason, *(() if passed.combined else (message,))])
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name[:_LONGEST_NAME].rstrip('-.')}.{digest}", "namespace": owner.namespace},
        "eventTime": _micro(now),
        "firstTimestamp": _seconds(now),
        "lastTimestamp": _seconds(now),
        "count": passed.times,
        "type": event.type,
        "reason": event.reason,
        "action": event.reason,
        "message": _cut(_COMBINED + message if passed.combined else message),
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
