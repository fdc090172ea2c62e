"""Turning dials and reading counters of a running stand-in, from any process: JSON lines over a Unix socket."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from whimbrel_testbed.dsql.hub import COUNTERS, Hub


class Control:
    """The client; `path` is the socket that the server's JSON line names."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def set(self, **dials: Any) -> None:
        """Turn dials (see dials.Dials); raises ValueError where one is unknown."""
        self._ask({"set": dials})

    def dials(self) -> dict[str, Any]:
        """Return all dials."""
        return dict(self._ask({"get": "dials"}))

    def counters(self) -> dict[str, int]:
        """Return the counters (hub.COUNTERS) and `open`, the connections there are now."""
        return dict(self._ask({"get": "counters"}))

    def cut_sessions(self) -> int:
        """Cut every client's connection now; return how many there were."""
        return int(self._ask({"get": "cut"}))

    def _ask(self, request: dict[str, Any]) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self.path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["result"]


async def serve_control(hub: Hub, path: str) -> asyncio.Server:
    """Answer control clients on a Unix socket."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(_answer(hub, json.loads(line))).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()

    return await asyncio.start_unix_server(client, path)


def _answer(hub: Hub, request: dict[str, Any]) -> dict[str, Any]:
    if "set" in request:
        try:
            hub.turn(request["set"])
        except (TypeError, ValueError) as error:
            return {"error": str(error)}
        return {"result": hub.dials.as_json()}
    if request["get"] == "dials":
        return {"result": hub.dials.as_json()}
    if request["get"] == "cut":
        sessions = list(hub.sessions)
        for session in sessions:
            session.end()
        return {"result": len(sessions)}
    return {"result": {name: hub.counters[name] for name in COUNTERS} | {"open": len(hub.sessions)}}
