"""A tiny program beside the agent: when the agent is gone, it kills every process group of a pod that still runs.

It reads lines from standard input, whose other end only the agent holds: `+PID` for a group that began, `-PID` for
one that ended. The end of the input means that the agent ended. Standard library only, started in isolated mode.
"""

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Keep watch until the input ends, then kill."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups = set[int]()
    for line in sys.stdin:
        change, pid = line[0], int(line[1:])
        if change == "+":
            groups.add(pid)
        else:
            groups.discard(pid)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
