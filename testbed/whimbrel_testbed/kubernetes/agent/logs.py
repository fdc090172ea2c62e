"""The node's HTTPS port: what `kubectl logs` asks for, through the API server. It listens on loopback only."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from whimbrel_testbed.certificates import make_authority
from whimbrel_testbed.kubernetes.agent.containers import Container
from whimbrel_testbed.kubernetes.agent.fields import HOST_IP
from whimbrel_testbed.kubernetes.agent.messages import last_lines
from whimbrel_testbed.kubernetes.agent.pods import Pod

_POLL_SECONDS = 0.2
_CHUNK = 1 << 16
_UNKNOWN = ("timestamps", "sinceSeconds", "sinceTime", "stream")
FindPod = Callable[[str, str], Pod | None]
"""Gives the pod of a namespace and name, None where this node has none."""


@dataclass(frozen=True)
class _Wish:
    """What of a log is wanted; -1 is all."""

    follow: bool
    tail_lines: int
    most_bytes: int


class LogServer:
    """Serves container logs; `port` is known after `start`."""

    def __init__(self, find: FindPod) -> None:
        self._find = find
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None)
        self.port = 0

    async def start(self, certificate: Path, key: Path) -> None:
        """Listen on a free port with that certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST_IP, 0, ssl_context=context, shutdown_timeout=0.2)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Close the port and whatever still follows a log."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        container = self._container(request)
        unknown = [name for name in _UNKNOWN if request.query.get(name, "false") not in {"false", "All"}]
        if unknown:
            raise web.HTTPNotImplemented(text=f"this node agent keeps plain logs and knows no {', '.join(unknown)}")
        previous = request.query.get("previous") == "true"
        log = container.log(container.record.restarts - previous)
        if not log.is_file():
            name = container.record.name
            text = f'previous terminated container "{name}" not found' if previous else f'container "{name}" is waiting'
            raise web.HTTPBadRequest(text=f"{text} to start" if not previous else text)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await _send(response, log, _wish(request, previous), lambda: container.process is not None)
        return response

    def _container(self, request: web.Request) -> Container:
        names = request.match_info
        pod = self._find(names["namespace"], names["pod"])
        found = None if pod is None else pod.container(names["container"])
        if found is None:
            raise web.HTTPNotFound(text=f"this node runs no container {names['container']} of pod {names['pod']}")
        return found


def _wish(request: web.Request, previous: bool) -> _Wish:
    follow = request.query.get("follow") == "true" and not previous
    return _Wish(follow, int(request.query.get("tailLines", -1)), int(request.query.get("limitBytes", -1)))


async def _send(response: web.StreamResponse, log: Path, wish: _Wish, runs: Callable[[], bool]) -> None:
    left = wish.most_bytes
    with log.open("rb") as handle:
        if wish.tail_lines >= 0:
            size = log.stat().st_size
            handle.seek(size - len(last_lines(log, wish.tail_lines, size)))
        while left != 0:
            # Asked before reading: what was written before the end is then read for certain.
            more = wish.follow and runs()
            while chunk := handle.read(_CHUNK if left < 0 else min(left, _CHUNK)):
                await response.write(chunk)
                left = left - len(chunk) if left > 0 else left
            if not more:
                return
            await asyncio.sleep(_POLL_SECONDS)


def own_certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for loopback, signed by an authority of its own; return the files of certificate and key."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return make_authority(Path(tempfile.mkdtemp(dir=directory))).server_certificate((HOST_IP, "localhost"))
