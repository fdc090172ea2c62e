"""The operator's life as a process: probes first, then what must be there, the Lease, kopf; and a prompt end.

What it does while it leads stands in handlers.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from kubernetes.aio import client

from whimbrel_operator import handlers, startup
from whimbrel_operator.abandoning import Abandoning
from whimbrel_operator.daemon import Shared
from whimbrel_operator.errors import LeaseLost, OperatorError
from whimbrel_operator.health import Health, HealthServer
from whimbrel_operator.lease import KubernetesLeases, LeaderLease
from whimbrel_operator.letting_go import LettingGo
from whimbrel_operator.metrics import Metrics
from whimbrel_operator.reconcile import Reconciler
from whimbrel_operator.runtime.kubernetes.api import Api
from whimbrel_operator.runtime.kubernetes.client import connect
from whimbrel_operator.runtime.kubernetes.runtime import KubernetesRuntime
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.settings import Settings
from whimbrel_operator.troubles import told
from whimbrel_operator.unreadable import refuse
from whimbrel_operator.wakeups import Board

LOG: Final = logging.getLogger("whimbrel.process")
STOPPED, FAILED = 0, 1
_GRACE: Final = 10.0
_GRACE_WITHOUT_LEASE: Final = 3.0


class Process:
    """One operator process. Its end is prompt: told to stop, it gives the Lease back; without it, it is gone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._board = Board(time.monotonic)
        self._metrics = Metrics()
        self._health = Health(self._board, settings.stalled_after, time.monotonic)
        self._told_to_stop = asyncio.Event()

    async def run(self) -> int:
        """Live until told to stop, or until there is no going on; the exit code. Raises NoCluster, SettingsError."""
        self._take_signals()
        settings = self._settings
        async with (
            await connect(kubeconfig=settings.kubeconfig, service_account=settings.service_account) as api,
            HealthServer(settings.listen, self._health, self._metrics),
        ):
            return await self._live(api)

    async def _live(self, api: client.ApiClient) -> int:
        settings = self._settings
        lease = LeaderLease(
            KubernetesLeases(Api(api), settings.namespace), settings.identity, settings.lease, time.monotonic
        )
        if not await self._unless_stopped(startup.ready(api, settings.namespaces, settings.namespace, self._health)):
            return STOPPED
        if not await self._unless_stopped(lease.acquire()):
            await lease.release()
            return STOPPED
        return await self._lead(api, lease)

    async def _lead(self, api: client.ApiClient, lease: LeaderLease) -> int:
        """Keep the Lease and serve; whichever ends first ends the other."""
        stop = asyncio.Event()
        self._leads(True)
        keeper = asyncio.create_task(lease.keep(), name="lease")
        registry = handlers.register(self._shared(api, lease), api)
        server = asyncio.create_task(
            handlers.serve(registry, self._settings.namespaces, stop, self._take_signals), name="kopf"
        )
        asked = asyncio.create_task(self._told_to_stop.wait(), name="signals")
        await asyncio.wait((keeper, server, asked), return_when=asyncio.FIRST_COMPLETED)
        code = self._why(keeper, server)
        self._leads(False)
        asyncio.get_running_loop().set_exception_handler(_tell_in_a_line)
        _end_at_the_latest(_GRACE_WITHOUT_LEASE if keeper.done() else _GRACE, code)
        stop.set()
        await _ended(server, (_GRACE_WITHOUT_LEASE if keeper.done() else _GRACE) / 2)
        lost = keeper.done()
        await _cancelled(keeper, asked)
        if not lost:
            await lease.release()
        return code

    def _why(self, keeper: asyncio.Task[None], server: asyncio.Task[None]) -> int:
        """The exit code, and a line that says why it ends."""
        if keeper.done():
            error = keeper.exception() or LeaseLost("the Lease is not kept any more")
            LOG.warning("ends, Kubernetes starts it again: %s", error)
            return FAILED
        if server.done():
            failure = server.exception()
            why = told(failure).line if failure is not None else "kopf has ended by itself"
            LOG.error("ends, Kubernetes starts it again: %s", why, exc_info=failure)
            return FAILED
        LOG.info("told to stop; workers go on, the next operator takes over")
        return STOPPED

    def _shared(self, api: client.ApiClient, lease: LeaderLease) -> Shared:
        settings = self._settings
        runtime = KubernetesRuntime(
            api, settings.pods, lambda: datetime.now(UTC), identity=settings.identity, may_write=lease.holds
        )
        requests = Api(api, may_write=lease.holds)

        async def say_so(key: Key, error: OperatorError) -> None:
            news = await refuse(requests, key, error)
            if news is not None:
                await runtime.tell(*news)

        reconciler = Reconciler(runtime, lambda: datetime.now(UTC))
        going = Abandoning(runtime, lambda: datetime.now(UTC))
        return Shared(
            reconciler=reconciler,
            board=self._board,
            metrics=self._metrics,
            slots=asyncio.Semaphore(settings.passes),
            clock=time.monotonic,
            leads=lease.holds,
            clear=LettingGo(reconciler, going, time.monotonic, self._metrics.seen).clear,
            refuse=say_so,
            pass_timeout=settings.pass_timeout,
        )

    async def _unless_stopped(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Whether it came to its end before the process was told to stop. Its errors are raised."""
        work = asyncio.create_task(coroutine)
        asked = asyncio.create_task(self._told_to_stop.wait())
        await asyncio.wait((work, asked), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await _cancelled(asked)
            await work
            return True
        await _cancelled(work, asked)
        LOG.info("told to stop")
        return False

    def _leads(self, leads: bool) -> None:
        self._health.leads = leads
        self._metrics.leads(leads)

    def _take_signals(self) -> None:
        """kopf takes them for itself when it starts; the order of the end is ours."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop.set)


async def _ended(task: asyncio.Task[None], seconds: float) -> None:
    """Give a task that was told to end that long, then cancel it."""
    await asyncio.wait((task,), timeout=seconds)
    if not task.done():
        LOG.warning("kopf has not ended in %.0f s and is cancelled", seconds)
        await _cancelled(task)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _tell_in_a_line(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Requests that kopf had under way when the process ended fail as they must: that is no defect with a traceback."""
    failure = context.get("exception")
    why = told(failure).line if isinstance(failure, Exception) else str(context.get("message", ""))
    LOG.warning("left behind at the end: %s", why)


def _end_at_the_latest(seconds: float, code: int) -> None:
    """A process that has lost its Lease must not live on because something in it does not end."""

    def end() -> None:
        LOG.warning("ends by force: it was not done after %.0f s", seconds)
        os._exit(code or FAILED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
