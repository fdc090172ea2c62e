"""The election over a Lease in memory: who leads, when it is lost, how it is given back."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from whimbrel_operator.errors import LeaseLost
from whimbrel_operator.lease import LeaderLease
from whimbrel_operator.settings import LeaseTimes

TIMES = LeaseTimes(duration=1, renew_deadline=0.4, retry_period=0.05)
JSON = Mapping[str, Any]


class MemoryLeases:
    """One Lease, as an API server keeps it. `wait` stands before each answer."""

    def __init__(self) -> None:
        self.lease: JSON | None = None
        self.version = 0
        self.wait: Callable[[], Awaitable[None]] | None = None
        self.asked = 0

    async def read(self) -> JSON | None:
        await self._answer()
        return self.lease

    async def create(self, spec: JSON) -> JSON | None:
        await self._answer()
        return None if self.lease is not None else self.write(spec)

    async def replace(self, found: JSON, spec: JSON) -> JSON | None:
        await self._answer()
        known = self.lease is not None and self.lease["metadata"] == found["metadata"]
        return self.write(spec) if known else None

    def write(self, spec: JSON) -> JSON:
        self.version += 1
        self.lease = {"metadata": {"resourceVersion": str(self.version)}, "spec": dict(spec)}
        return self.lease

    @property
    def spec(self) -> JSON:
        assert self.lease is not None
        found: JSON = self.lease["spec"]
        return found

    async def _answer(self) -> None:
        self.asked += 1
        if self.wait is not None:
            await self.wait()


def lease(leases: MemoryLeases, who: str) -> LeaderLease:
    return LeaderLease(leases, who, TIMES, asyncio.get_running_loop().time)


async def hangs() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise ConnectionRefusedError("nobody listens")


def test_the_first_leads_and_the_second_waits_until_it_runs_out() -> None:
    async def story() -> None:
        leases, loop = MemoryLeases(), asyncio.get_running_loop()
        await lease(leases, "first").acquire()
        began = loop.time()
        await lease(leases, "second").acquire()
        assert loop.time() - began >= TIMES.duration, "before it had run out"
        assert leases.spec["holderIdentity"] == "second"
        assert leases.spec["leaseTransitions"] == 1

    asyncio.run(story())


def test_a_holder_that_renews_is_left_alone() -> None:
    async def story() -> None:
        leases = MemoryLeases()
        first = lease(leases, "first")
        await first.acquire()
        since = leases.spec["acquireTime"]
        keeper = asyncio.create_task(first.keep())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5 * TIMES.duration):
                await lease(leases, "second").acquire()
        assert leases.spec["holderIdentity"] == "first"
        assert leases.spec["acquireTime"] == since
        keeper.cancel()

    asyncio.run(story())


def test_given_back_it_is_free_at_once() -> None:
    async def story() -> None:
        leases, loop = MemoryLeases(), asyncio.get_running_loop()
        first = lease(leases, "first")
        await first.acquire()
        await first.release()
        assert "holderIdentity" not in leases.spec
        began = loop.time()
        await lease(leases, "second").acquire()
        assert loop.time() - began < TIMES.retry_period

    asyncio.run(story())


def test_one_that_another_has_taken_is_lost_at_once_and_not_given_back() -> None:
    async def story() -> None:
        leases = MemoryLeases()
        first = lease(leases, "first")
        await first.acquire()
        leases.write(dict(leases.spec) | {"holderIdentity": "thief"})
        with pytest.raises(LeaseLost, match="held by thief"):
            await first.keep()
        await first.release()
        assert leases.spec["holderIdentity"] == "thief"

    asyncio.run(story())


def test_a_process_that_stood_still_knows_that_it_holds_nothing_any_more() -> None:
    async def story() -> None:
        now = 0.0
        first = LeaderLease(MemoryLeases(), "first", TIMES, lambda: now)
        assert not first.holds()
        await first.acquire()
        assert first.holds()
        now += TIMES.duration
        assert not first.holds()

    asyncio.run(story())


def test_one_that_is_gone_is_lost() -> None:
    async def story() -> None:
        leases = MemoryLeases()
        first = lease(leases, "first")
        await first.acquire()
        leases.lease = None
        with pytest.raises(LeaseLost, match="held by nobody"):
            await first.keep()

    asyncio.run(story())


@pytest.mark.parametrize("wait", [hangs, fails])
def test_a_silent_api_server_costs_the_lease_before_another_may_have_it(wait: Callable[[], Awaitable[None]]) -> None:
    async def story() -> None:
        leases, loop = MemoryLeases(), asyncio.get_running_loop()
        first = lease(leases, "first")
        await first.acquire()
        began, leases.wait = loop.time(), wait
        with pytest.raises(LeaseLost, match="could not be renewed"):
            await first.keep()
        assert TIMES.renew_deadline * 0.9 < loop.time() - began < TIMES.duration
        assert not first.holds()

    asyncio.run(story())


def test_a_short_silence_costs_nothing() -> None:
    async def story() -> None:
        leases, loop = MemoryLeases(), asyncio.get_running_loop()
        first = lease(leases, "first")
        await first.acquire()
        quiet = loop.time() + TIMES.renew_deadline / 2
        leases.wait = lambda: fails() if loop.time() < quiet else asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await first.keep()
        assert leases.spec["holderIdentity"] == "first"

    asyncio.run(story())


def test_a_write_whose_answer_was_lost_is_taken_up_again() -> None:
    async def story() -> None:
        leases = MemoryLeases()
        first = lease(leases, "first")
        await first.acquire()
        leases.write(leases.spec)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4 * TIMES.retry_period):
                await first.keep()
        assert leases.spec["holderIdentity"] == "first"

    asyncio.run(story())


def test_an_api_server_that_is_not_there_yet_is_waited_for() -> None:
    async def story() -> None:
        leases = MemoryLeases()
        leases.wait = fails
        waiting = asyncio.create_task(lease(leases, "first").acquire())
        while leases.asked < 3:
            await asyncio.sleep(0.01)
        leases.wait = None
        await asyncio.wait_for(waiting, 1)

    asyncio.run(story())
