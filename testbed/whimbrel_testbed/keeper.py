"""A tiny program beside each server: when its starter is gone, it ends the server and removes its directory.

It reads lines from standard input, whose other end only the starter holds: `pid N` names the server now running,
`also PATH` one more directory to remove, `done` says that everything was cleaned up. The end of the input without
`done` means that the starter died. It uses the standard library only and is started in isolated mode, so that it is
quick and small.
"""

import os
import select
import shutil
import signal
import sys
from contextlib import suppress

GRACE_SECONDS = 10


def main() -> None:
    """Keep watch; arguments: the server's directory, and the number of the signal that ends the server at once."""
    directories, number = [sys.argv[1]], int(sys.argv[2])
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    server = None
    for line in sys.stdin:
        if line.strip() == "done":
            return
        if line.startswith("also "):
            directories.append(line.removeprefix("also ").rstrip("\n"))
            continue
        with suppress(ProcessLookupError):
            server = os.pidfd_open(int(line.removeprefix("pid ")))
    if server is not None:
        end(server, number)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def end(server: int, number: int) -> None:
    """Send the signal (and SIGCONT, as the server may be stopped), wait, and kill what is still there."""
    for sent in (number, signal.SIGCONT):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(server, sent)
    if select.select([server], [], [], GRACE_SECONDS)[0]:
        return
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(server, signal.SIGKILL)
    select.select([server], [], [], GRACE_SECONDS)


if __name__ == "__main__":
    main()
