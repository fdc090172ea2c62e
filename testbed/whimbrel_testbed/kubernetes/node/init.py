"""The first process of a real node's namespaces: gives it folders and a name of its own, then reaps what has ended.

When its standard input ends, its starter is gone: it ends, and with it the kernel ends all processes of the node.
It uses the standard library only, and is started in isolated mode.
Arguments: the node's name, then pairs of a folder of the machine and the one that the node sees in its place.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

READY = "ready"
_IDLE_SECONDS = 1.0


def main(name: str, *pairs: str) -> None:
    """Set up, say that it is ready, and live on."""
    for place, own in zip(pairs[::2], pairs[1::2], strict=True):
        Path(own).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", own, place], check=True)
    socket.sethostname(name)
    print(READY, flush=True)
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(_IDLE_SECONDS)


def _end_with_the_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
