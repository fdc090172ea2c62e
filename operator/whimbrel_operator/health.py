"""The process's own small web server: /healthz, /readyz, /metrics. kopf's own probes are not used."""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from whimbrel_api.repeats import Repeats
from whimbrel_operator.errors import SettingsError
from whimbrel_operator.metrics import Metrics
from whimbrel_operator.wakeups import Board

LOG: Final = logging.getLogger("whimbrel.health")
_BEAT: Final = 0.5
_LAG: Final = 5.0
_REMEMBERED: Final = 15.0
_SHOWN: Final = 5


class Health:
    """What the probes ask. `waits_for` says why the process cannot work yet; empty when it works or only waits."""

    def __init__(self, board: Board, stalled_after: float, clock: Callable[[], float]) -> None:
        self._board, self._stalled_after, self._clock = board, stalled_after, clock
        self._beat = clock()
        self._late: tuple[float, float] = (float("-inf"), 0.0)
        self.waits_for = "it is starting"
        self.leads = False

    def problem(self) -> str:
        """Why the process should be restarted, as a sentence; empty when it should not."""
        overdue = self._board.overdue(self._stalled_after)
        if overdue:
            names = ", ".join(f"{key} for {seconds:.0f} s" for key, seconds in overdue[:_SHOWN])
            more = f" and {len(overdue) - _SHOWN} more" if len(overdue) > _SHOWN else ""
            return f"reconciling stalls: a pass is overdue for {names}{more}"
        when, lag = self._late
        if self._clock() - when < _REMEMBERED:
            return f"the event loop was blocked for {lag:.1f} s; something in the process computes or waits too long"
        return ""

    async def watch(self) -> None:
        """Measure for ever whether the event loop gets its turn."""
        repeats = Repeats(60.0)
        while True:
            self._beat = self._clock()
            await asyncio.sleep(_BEAT)
            lag = self._clock() - self._beat - _BEAT
            if lag > _LAG:
                self._late = (self._clock(), lag)
                repeats.log(LOG, logging.WARNING, "blocked", "the event loop was blocked for %.1f s", lag)


class HealthServer:
    """Serves as long as the process lives, also while it waits for the Lease."""

    def __init__(self, listen: tuple[str, int], health: Health, metrics: Metrics) -> None:
        self._listen, self._health, self._metrics = listen, health, metrics
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)])
        app.add_routes([web.get("/metrics", self._figures)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._watch: asyncio.Task[None] | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        host, port = self._listen
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(
                f"nothing can be served at {host}:{port}",
                why=str(error),
                todo="set WHIMBREL_LISTEN, for example 0.0.0.0:8080",
            ) from error
        self.port = self._runner.addresses[0][1]
        self._watch = asyncio.create_task(self._health.watch(), name="event loop's watch")
        LOG.info("probes and figures are served at %s:%d (/healthz /readyz /metrics)", host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self._health.problem()
        return web.Response(status=503, text=problem + "\n") if problem else web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._health.waits_for:
            return web.Response(status=503, text=f"not ready: {self._health.waits_for}\n")
        return web.Response(text="ok: it leads\n" if self._health.leads else "ok: it waits for the Lease\n")

    async def _figures(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
