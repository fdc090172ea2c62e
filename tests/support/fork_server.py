"""Forks operators on demand: a line of JSON in, `[environment, log file]`, a process id out. A script, not a module."""

from __future__ import annotations

import json
import os
import signal
import sys

import whimbrel_operator.__main__


def _become(environment: dict[str, str], log: str) -> None:
    """Be an operator to the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for here, there in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(here, there)
    os.environ.clear()
    os.environ.update(environment)
    code = 1
    try:
        code = whimbrel_operator.__main__.main()
    finally:
        sys.stderr.write(f"exit code {code}\n")
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        environment, log = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _become(environment, log)
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
