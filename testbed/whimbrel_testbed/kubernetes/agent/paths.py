"""Pure: what stands in for the namespaces of a container: mount paths become folders, `0.0.0.0` the pod's address."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping

_BEFORE = r"(?:(?<![\w.\-/])|(?<=file://))"
_AFTER = r"(?![\w\-]|\.\w)"
_ANY_ADDRESS = re.compile(r"(?<![\w.])0\.0\.0\.0(?![\w.])")


def rewriter(folders: Mapping[str, str], pod_ip: str) -> Callable[[str], str]:
    """Return what rewrites a word of a command or an environment value.

    `folders` are mount paths and the folders (or files) in their place. A mount path counts where it stands as a path
    or as the beginning of one: `/tmp` in `--to=/tmp/x`, neither in `/var/tmp` nor in `/tmpfs`. The longest one wins.
    """
    normal = {path.rstrip("/"): folder for path, folder in folders.items() if path.rstrip("/")}
    longest_first = sorted(normal, key=len, reverse=True)
    pattern = re.compile(_BEFORE + "(" + "|".join(map(re.escape, longest_first)) + ")" + _AFTER)

    def rewrite(text: str) -> str:
        moved = pattern.sub(lambda match: normal[match[1]], text) if normal else text
        return _ANY_ADDRESS.sub(pod_ip, moved)

    return rewrite


def pod_address(uid: str, taken: Collection[str]) -> str:
    """Choose a loopback address by the pod's uid, the same each time, except where it is taken on this node."""
    for attempt in range(1000):
        digest = hashlib.sha256(f"{uid}/{attempt}".encode()).digest()
        address = f"127.{1 + digest[0] % 254}.{digest[1]}.{1 + digest[2] % 254}"
        if address not in taken:
            return address
    raise RuntimeError("no loopback address is free for another pod")
