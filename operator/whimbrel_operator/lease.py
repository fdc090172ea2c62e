"""The Lease by which one process leads and the others wait. What the leader does stands elsewhere.

The client library brings an election of its own. It does not serve here: a connection error ends it, a request that
hangs outlives its renew deadline, it writes local time as UTC, and it never gives a Lease back.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from whimbrel_operator.errors import LeaseLost, NotFound, Outdated
from whimbrel_operator.runtime.kubernetes.api import Api
from whimbrel_operator.runtime.kubernetes.kinds import LEASES
from whimbrel_operator.settings import LeaseTimes
from whimbrel_operator.specs.names import LEASE
from whimbrel_operator.troubles import told

LOG: Final = logging.getLogger("whimbrel.lease")
JSON = Mapping[str, Any]


class Leases(Protocol):
    """Where the Lease is kept. Errors of the connection and of the API server are raised as they are."""

    async def read(self) -> JSON | None:
        """The Lease; None when there is none."""

    async def create(self, spec: JSON) -> JSON | None:
        """Make it; None when somebody else has."""

    async def replace(self, found: JSON, spec: JSON) -> JSON | None:
        """Write it if it is still as found; None when it is not."""


@dataclass(frozen=True)
class _Seen:
    """A Lease as last seen to change, and when, by this process's own clock: clocks of machines may differ."""

    version: str
    at: float


class LeaderLease:
    """One process's part in the election. `clock` in seconds; it must never go back."""

    def __init__(self, leases: Leases, identity: str, times: LeaseTimes, clock: Callable[[], float]) -> None:
        self._leases, self._identity, self._times, self._clock = leases, identity, times, clock
        self._seen: _Seen | None = None
        self._held: JSON | None = None
        self._renewed = 0.0
        self._told = ""

    def holds(self) -> bool:
        """Whether nobody else can have it yet; also where the process itself stood still and could not renew."""
        return self._held is not None and self._clock() < self._renewed + self._times.duration

    async def acquire(self) -> None:
        """Return once this process leads; an API server that is away is waited for."""
        while not await self._tried():
            await asyncio.sleep(self._times.retry_period)
        LOG.info("leads: it holds the Lease as %s", self._identity)

    async def keep(self) -> None:
        """Renew for ever. Raises LeaseLost when another has it, or when it could not be renewed before the deadline."""
        while True:
            await asyncio.sleep(self._times.retry_period)
            await self._renew()

    async def release(self) -> None:
        """Give it back, so that the next process need not wait until it runs out. Errors are told, not raised."""
        if self._held is None:
            return
        spec = dict(self._held["spec"]) | {"leaseDurationSeconds": 1, "renewTime": _now()}
        spec.pop("holderIdentity", None)
        try:
            async with asyncio.timeout(self._times.retry_period):
                await self._leases.replace(self._held, spec)
            LOG.info("has given the Lease back")
        except Exception as error:  # noqa: BLE001 - it runs out by itself
            LOG.warning("could not give the Lease back, it runs out by itself: %s", told(error).line)
        self._held = None

    async def _tried(self) -> bool:
        began = self._clock()
        try:
            async with asyncio.timeout(self._times.renew_deadline):
                taken = await self._take()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process waits; it leads nothing yet
            self._say(f"cannot ask for the Lease, tries again: {told(error).line}")
            return False
        if taken is None:
            return False
        self._held, self._renewed, self._told = taken, began, ""
        return True

    async def _take(self) -> JSON | None:
        found = await self._leases.read()
        if found is None:
            return await self._leases.create(self._spec({}))
        spec = found.get("spec") or {}
        if self._is_held(found, spec):
            self._say(f"waits: {spec.get('holderIdentity')} holds the Lease")
            return None
        return await self._leases.replace(found, self._spec(spec))

    def _is_held(self, found: JSON, spec: JSON) -> bool:
        """Whether another holds it: it has a holder, and has changed within its duration by this process's clock."""
        version = str(found["metadata"]["resourceVersion"])
        if self._seen is None or self._seen.version != version:
            self._seen = _Seen(version, self._clock())
        duration = float(spec.get("leaseDurationSeconds") or self._times.duration)
        return bool(spec.get("holderIdentity")) and self._clock() < self._seen.at + duration

    async def _renew(self) -> None:
        """Once, or again until the deadline. The time counts from before the request that was answered."""
        deadline = self._renewed + self._times.renew_deadline
        while self._held is not None:
            began = self._clock()
            try:
                async with asyncio.timeout(max(0.0, deadline - began)):
                    written = await self._written(self._held)
                self._held, self._renewed = written, began
                self._say("")
                return
            except LeaseLost:
                self._held = None
                raise
            except Exception as error:  # noqa: BLE001 - tried again until the deadline, then the Lease is lost
                self._say(f"cannot renew the Lease: {told(error).line}")
                await self._wait_or_lose(deadline, told(error).line)

    async def _written(self, held: JSON) -> JSON:
        written = await self._leases.replace(held, self._spec(held["spec"]))
        if written is not None:
            return written
        found = await self._leases.read()
        holder = ((found or {}).get("spec") or {}).get("holderIdentity")
        if found is None or holder != self._identity:
            raise LeaseLost(f"the Lease {LEASE} is held by {holder or 'nobody'} now", todo="this process ends")
        again = await self._leases.replace(found, self._spec(found["spec"]))
        if again is None:
            raise LeaseLost(f"the Lease {LEASE} is written by somebody else", todo="this process ends")
        return again

    async def _wait_or_lose(self, deadline: float, why: str) -> None:
        left = deadline - self._clock()
        if left <= 0:
            self._held = None
            raise LeaseLost(
                f"the Lease {LEASE} could not be renewed for {self._times.renew_deadline:.0f} s",
                why=why,
                todo="this process ends, since another may lead soon; Kubernetes starts it again",
            )
        await asyncio.sleep(min(left, self._times.retry_period))

    def _spec(self, before: JSON) -> JSON:
        mine = before.get("holderIdentity") == self._identity
        transitions = int(before.get("leaseTransitions") or 0)
        now = _now()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration),
            "acquireTime": before.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": transitions if mine or not before else transitions + 1,
        }

    def _say(self, line: str) -> None:
        """Tell a state once, not with every try."""
        if line != self._told:
            self._told = line
            if line:
                LOG.log(logging.INFO if line.startswith("waits") else logging.WARNING, line)


def _now() -> str:
    """Kubernetes' MicroTime: always six digits."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class KubernetesLeases:
    """The Lease on an API server."""

    def __init__(self, api: Api, namespace: str, name: str = LEASE) -> None:
        self._api, self._namespace, self._name = api, namespace, name

    async def read(self) -> JSON | None:
        """The Lease; None when there is none."""
        return await self._api.get(LEASES, self._namespace, self._name)

    async def create(self, spec: JSON) -> JSON | None:
        """Make it; None when somebody else has."""
        meta = {"name": self._name, "namespace": self._namespace, "labels": {"app.kubernetes.io/part-of": "whimbrel"}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": dict(spec)}
        try:
            return await self._api.create(LEASES, body)
        except Outdated:
            return None

    async def replace(self, found: JSON, spec: JSON) -> JSON | None:
        """Write it if it is still as found; None when it is not, or is gone."""
        try:
            return await self._api.replace(LEASES, self._namespace, self._name, {**found, "spec": dict(spec)})
        except (Outdated, NotFound):
            return None
