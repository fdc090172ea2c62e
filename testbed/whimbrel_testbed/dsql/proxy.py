"""The stand-in's own process: `python -m whimbrel_testbed.dsql.proxy`, its settings as JSON on standard input.

It prints `{"port": …}` when it listens and ends when standard input does, so that it never outlives who started it.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

from whimbrel_testbed.dsql.backend import Address
from whimbrel_testbed.dsql.control import serve_control
from whimbrel_testbed.dsql.dials import Dials
from whimbrel_testbed.dsql.hub import Hub
from whimbrel_testbed.dsql.listener import Listener
from whimbrel_testbed.dsql.signin import Gate
from whimbrel_testbed.standins import input_ends, serve_standin, tell_port


async def run(settings: dict[str, Any]) -> None:
    """Serve until standard input ends or a task of the server fails."""
    hub = Hub(Address(**settings["backend"]), Dials(**settings["dials"]))
    await hub.jobs.prepare(hub.limits)
    listener = Listener(hub, Gate(**settings["gate"]), settings["certificate"], settings["key"])
    control = await serve_control(hub, settings["control"])
    tell_port(listener.port)
    work = (listener.serve(), hub.watch(), hub.jobs.work(), input_ends())
    tasks = [asyncio.ensure_future(job) for job in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        control.close()
        listener.close()
        for task in tasks:
            task.cancel()
        await hub.close()
        # Also where who started this process is gone without a word.
        shutil.rmtree(settings["directory"], ignore_errors=True)
    for task in done:
        task.result()


def main() -> None:
    """Read the settings and serve."""
    serve_standin(run)


if __name__ == "__main__":
    main()
