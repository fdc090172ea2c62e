"""Places where a test can kill the process, named in WHIMBREL_FAILPOINT as `name:count`; else they do nothing.

The signal is SIGKILL, as the kernel's own killer sends it: nothing is flushed, nothing is said. With `name:count:stop`
it is SIGSTOP, and the process stands still there until somebody sends SIGCONT.
"""

import itertools
import os
import signal

_wanted, _count, _how = [*os.environ.get("WHIMBREL_FAILPOINT", "").split(":"), "", ""][:3]
_reached = itertools.count(1)


def reach(name: str) -> None:
    """Die or stand still here if the environment asks for it and this is the count-th time."""
    if name == _wanted and next(_reached) == int(_count or "1"):
        os.kill(os.getpid(), signal.SIGSTOP if _how == "stop" else signal.SIGKILL)
