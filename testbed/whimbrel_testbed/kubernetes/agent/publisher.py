"""Brings a pod's status to the API server: the newest one wins, and it is tried until it is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from whimbrel_testbed.kubernetes.agent.bell import Bell
from whimbrel_testbed.kubernetes.agent.client import AWAY, STRATEGIC, Api, ApiError
from whimbrel_testbed.kubernetes.agent.shapes import Json, now
from whimbrel_testbed.kubernetes.agent.states import PodView, pod_status

_RETRY_SECONDS = 0.5
_GONE = (404, 409)
_LOG = logging.getLogger(__name__)


class Publisher:
    """Sends the status of one pod whenever `changed` was called; `view` gives what it is made of."""

    def __init__(self, api: Api, view: Callable[[], PodView]) -> None:
        self._api, self._view = api, view
        self._conditions: list[Json] = (view().pod.get("status") or {}).get("conditions") or []
        self._sent: Json | None = None
        self._bell, self._done = Bell(), Bell()
        self._handled = 0
        self.gone = False

    def changed(self) -> None:
        """Say that the status is another one now."""
        self._bell.ring()

    def heard(self, status: Json) -> None:
        """Compare with what the API server has: others (the node controller) write conditions too."""
        if self._sent is not None and _ready(status) != _ready(self._sent):
            self._sent = None
            self.changed()

    async def run(self) -> None:
        """Send until cancelled."""
        while not self.gone:
            await self._bell.wait(self._handled)
            self._handled = await self._send_newest()
            self._done.ring()

    async def flush(self) -> None:
        """Return once all that was changed so far is at the API server, or the pod is gone."""
        wanted = self._bell.rings
        while self._handled < wanted and not self.gone:
            await self._done.wait(self._done.rings)

    async def _send_newest(self) -> int:
        while True:
            rings = self._bell.rings
            try:
                await self._send(pod_status(self._view(), self._conditions, now()))
                return rings
            except ApiError as error:
                _LOG.log(logging.DEBUG if error.status in _GONE else logging.WARNING, "Status refused: %s", error)
                if error.status in _GONE:
                    self.gone = True
                    return rings
            except AWAY as error:
                _LOG.info("A pod's status waits for the API server: %s", error or type(error).__name__)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _send(self, status: Json) -> None:
        if status == self._sent:
            return
        metadata = self._view().pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        # The uid is a precondition: a pod that has taken this one's name is not touched.
        await self._api.call("PATCH", path, {"metadata": {"uid": metadata["uid"]}, "status": status}, STRATEGIC)
        self._sent, self._conditions = status, status["conditions"]


def _ready(status: Json) -> tuple[object, object]:
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or []}
    return status.get("phase"), conditions.get("Ready")
