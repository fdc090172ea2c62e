"""Events about pods, sent in the background; the same Event again only counts up."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Literal

from whimbrel_testbed.kubernetes.agent.client import AWAY, MERGE, Api, ApiError
from whimbrel_testbed.kubernetes.agent.shapes import Json, now

_LOG = logging.getLogger(__name__)
_MOST_MESSAGE = 1000


class Events:
    """Sends the Events of one node. One that cannot be sent is logged: nothing depends on an Event."""

    def __init__(self, api: Api, node: str) -> None:
        self._api, self._node = api, node
        self._counts: dict[str, int] = {}
        self._tasks = set[asyncio.Task[None]]()

    def post(self, pod: Json, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Send an Event about a pod; returns at once."""
        task = asyncio.create_task(self._send(pod["metadata"], kind, reason, message[:_MOST_MESSAGE]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, metadata: Json, kind: str, reason: str, message: str) -> None:
        digest = hashlib.sha256(f"{metadata['uid']}/{reason}/{message}".encode()).hexdigest()[:16]
        name, namespace = f"{metadata['name']}.{digest}", metadata["namespace"]
        self._counts[name] = count = self._counts.get(name, 0) + 1
        path = f"/api/v1/namespaces/{namespace}/events"
        try:
            if count > 1:
                await self._api.call("PATCH", f"{path}/{name}", {"count": count, "lastTimestamp": now()}, MERGE)
            else:
                await self._api.call("POST", path, self._body(metadata, name, kind, reason, message))
        except (ApiError, *AWAY) as error:
            _LOG.info("Event %s of pod %s/%s was not sent: %s", reason, namespace, metadata["name"], error)

    def _body(self, metadata: Json, name: str, kind: str, reason: str, message: str) -> Json:
        moment = now()
        about = {"kind": "Pod", "apiVersion": "v1"} | {key: metadata[key] for key in ("name", "namespace", "uid")}
        return {
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": about, "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": moment, "lastTimestamp": moment,
            "source": {"component": "whimbrel-node-agent", "host": self._node},
            "reportingComponent": "whimbrel-node-agent", "reportingInstance": self._node,
        }  # fmt: skip
