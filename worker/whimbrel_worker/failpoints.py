"""Places where a test can kill the process, named in WHIMBREL_FAILPOINT as `name:count`; else they do nothing.

The signal is SIGKILL, as the kernel's own killer sends it: nothing is flushed, nothing is said.
"""

import itertools
import os
import signal

_wanted, _, _count = os.environ.get("WHIMBREL_FAILPOINT", "").partition(":")
_reached = itertools.count(1)


def reach(name: str) -> None:
    """Die here if the environment asks for it and this is the count-th time."""
    if name == _wanted and next(_reached) == int(_count or "1"):
        os.kill(os.getpid(), signal.SIGKILL)
