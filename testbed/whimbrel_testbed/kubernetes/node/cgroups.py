"""The machine's control groups: whether a kubelet may make its own there, and what is left of them afterwards."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PODS = "kubepods"
"""The group that a kubelet makes for all of its pods."""

_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_GONE_SECONDS = 10.0
_POLL_SECONDS = 0.1


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Return the mounted hierarchies: the root itself with version 2, a folder for each controller with version 1."""
    if (root / "cgroup.controllers").is_file():
        return [root]
    return sorted(path for path in root.glob("*") if path.is_dir() and not path.is_symlink()) if root.is_dir() else []


def missing_controllers(root: Path = ROOT) -> list[str]:
    """Return which controllers a kubelet would miss."""
    offered = root / "cgroup.controllers"
    there = offered.read_text().split() if offered.is_file() else [path.name for path in hierarchies(root)]
    # A link names one hierarchy of two controllers.
    return [name for name in _CONTROLLERS if name not in there and not (root / name).is_dir()]


def try_one(root: Path = ROOT) -> None:
    """Make a group in each hierarchy and remove it. Raises OSError where that is not allowed."""
    for place in hierarchies(root):
        group = place / f"whimbrel-try-{os.getpid()}"
        group.mkdir()
        group.rmdir()


def sweep(root: Path = ROOT, *, seconds: float = _GONE_SECONDS) -> list[Path]:
    """Remove the pods' groups; return those that processes are still in after so many seconds.

    The kernel keeps a group busy for a moment after its last process has ended.
    """
    deadline = time.monotonic() + seconds
    while left := [place / PODS for place in hierarchies(root) if not _removed(place / PODS)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(_POLL_SECONDS)
    return []


def _removed(group: Path) -> bool:
    """Remove a group with those below it, as far as they are empty; say whether it is gone."""
    if not group.is_dir():
        return True
    for inner in [path for path in group.iterdir() if path.is_dir()]:
        _removed(inner)
    with suppress(OSError):
        group.rmdir()
    return not group.is_dir()
