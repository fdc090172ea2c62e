"""Probes of containers: how often they are asked, what counts as an answer, and when a verdict changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from whimbrel_testbed.kubernetes.agent.shapes import Json, Unsupported

Execute = Callable[[list[str], float], Awaitable[bool]]
"""Runs a command of an exec probe within so many seconds; true where it ended with 0."""


@dataclass
class Tally:
    """Counts answers of one kind in a row; `verdict` changes when the probe's threshold is reached."""

    success_threshold: int
    failure_threshold: int
    verdict: bool | None = None
    _answer: bool | None = None
    _row: int = 0

    def take(self, answer: bool) -> bool | None:
        """Count an answer; return the verdict, None while there is none."""
        self._row = self._row + 1 if answer is self._answer else 1
        self._answer = answer
        if self._row >= (self.success_threshold if answer else self.failure_threshold):
            self.verdict = answer
        return self.verdict


def tally_of(probe: Json) -> Tally:
    """Return the thresholds of a probe, with the defaults of Kubernetes."""
    return Tally(probe.get("successThreshold", 1), probe.get("failureThreshold", 3))


def port_of(wanted: int | str, container: Json) -> int:
    """Return the number of a port that a probe gives by number or by name."""
    if isinstance(wanted, int):
        return wanted
    for port in container.get("ports") or []:
        if port.get("name") == wanted:
            return int(port["containerPort"])
    raise Unsupported(f'container "{container["name"]}" has no port named {wanted}')


@dataclass(frozen=True)
class Prober:
    """Asks one container."""

    container: Json
    pod_ip: str
    execute: Execute

    async def ask(self, probe: Json) -> bool:
        """Ask once, within the probe's time."""
        seconds = float(probe.get("timeoutSeconds", 1))
        if "httpGet" in probe:
            return await self._http(probe["httpGet"], seconds)
        if "tcpSocket" in probe:
            return await self._tcp(probe["tcpSocket"], seconds)
        if "exec" in probe:
            return await self.execute(probe["exec"]["command"], seconds)
        raise Unsupported(f'container "{self.container["name"]}": this node agent has no gRPC probes')

    async def _http(self, wanted: Json, seconds: float) -> bool:
        host, port = wanted.get("host") or self.pod_ip, port_of(wanted["port"], self.container)
        url = f"{wanted.get('scheme', 'HTTP').lower()}://{host}:{port}{_rooted(wanted.get('path', '/'))}"
        headers = {header["name"]: header["value"] for header in wanted.get("httpHeaders") or []}
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(ssl=False)) as session,
                session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                return 200 <= response.status < 400
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def _tcp(self, wanted: Json, seconds: float) -> bool:
        host, port = wanted.get("host") or self.pod_ip, port_of(wanted["port"], self.container)
        try:
            async with asyncio.timeout(seconds):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True


def _rooted(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def supported(container: Json) -> None:
    """Raise Unsupported where a container has a probe that is not known here."""
    for field in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(field)
        if probe is None:
            continue
        if "grpc" in probe:
            raise Unsupported(f'container "{container["name"]}": this node agent has no gRPC probes')
        for kind in ("httpGet", "tcpSocket"):
            if kind in probe:
                port_of(probe[kind]["port"], container)


async def verdicts(probe: Json, ask: Callable[[Json], Awaitable[bool]], heard: Callable[[bool], None]) -> None:
    """Ask again and again, for ever; `heard` is called at each answer after which there is a verdict."""
    tally = tally_of(probe)
    await asyncio.sleep(float(probe.get("initialDelaySeconds", 0)))
    while True:
        verdict = tally.take(await ask(probe))
        if verdict is not None:
            heard(verdict)
        await asyncio.sleep(float(probe.get("periodSeconds", 10)))
