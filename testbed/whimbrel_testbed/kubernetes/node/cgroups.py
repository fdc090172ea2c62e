"""The machine's control groups: whether a node may make some there, one for it, and its removal afterwards."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_INHERITED = ("cpuset.cpus", "cpuset.mems")
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
    name = f"whimbrel-try-{os.getpid()}"
    try:
        make(name, root)
    finally:
        sweep(name, root, seconds=1)


def make(name: str, root: Path = ROOT) -> None:
    """Make a group of that name for a kubelet to put its own into. Raises OSError where that is not allowed."""
    handed_down = root / "cgroup.subtree_control"
    if handed_down.is_file():
        handed_down.write_text(" ".join(f"+{controller}" for controller in _CONTROLLERS))
    for place in hierarchies(root):
        group = place / name
        group.mkdir(exist_ok=True)
        # With version 1 a new group has neither processors nor memory of its own.
        for file in _INHERITED if (place / "cgroup.clone_children").is_file() else ():
            if (group / file).is_file():
                (group / file).write_text((place / file).read_text())


def sweep(name: str, root: Path = ROOT, *, seconds: float = _GONE_SECONDS) -> list[Path]:
    """Remove a group with all below it; return where processes are still in it after so many seconds.

    The kernel keeps a group busy for a moment after its last process has ended.
    """
    deadline = time.monotonic() + seconds
    while left := [place / name for place in hierarchies(root) if not _removed(place / name)]:
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
