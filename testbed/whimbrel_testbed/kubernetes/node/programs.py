"""The programs of a real node, as Debian packs them, kept in the cache; nothing of the machine's own is changed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from whimbrel_testbed import cache, debian, pins
from whimbrel_testbed.cache import TestbedError, announce

_NEEDED = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", "nft")
_PLUGINS = ("bridge", "host-local", "loopback")
_PLUGIN_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")


@dataclass(frozen=True)
class Programs:
    """Folders of programs, of their libraries, and of the network plugins; `busybox` is a static one."""

    path: tuple[Path, ...]
    libraries: tuple[Path, ...]
    plugins: Path
    busybox: Path

    def environment(self, path: str) -> dict[str, str]:
        """Return what a process needs in its environment to find them, before all others of `path`."""
        found = {"PATH": ":".join([*map(str, self.path), path])}
        return found | ({"LD_LIBRARY_PATH": ":".join(map(str, self.libraries))} if self.libraries else {})

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the command line of one of them for any environment."""
        return [self.find(program), *arguments]

    def find(self, program: str) -> str:
        """Return the path of one of them. Raises TestbedError where it is not there."""
        found = shutil.which(program, path=":".join(map(str, self.path)))
        if found is None:
            raise TestbedError(f"No {program} in {', '.join(map(str, self.path))}.")
        return found


def node_programs() -> Programs:
    """Return Debian's, fetched once and kept in the cache; elsewhere the machine's own, where all are installed.

    Raises TestbedError where they cannot be had.
    """
    return _debian() if debian.is_debian() else _installed()


def _debian() -> Programs:
    root = cache.entry(f"node-debian-{debian.release_name()}-{pins.NODE_REVISION}", _fetch)
    libraries = tuple(sorted({path.parent for path in root.glob("usr/lib/*-linux-gnu/lib*.so.*")}))
    programs = Programs(
        (root / "usr/sbin", root / "usr/bin"), libraries, root / "usr/lib/cni", _first(root, "usr/bin", "bin")
    )
    _check(programs)
    return programs


def _first(root: Path, *folders: str) -> Path:
    found = [root / folder / "busybox" for folder in folders if (root / folder / "busybox").is_file()]
    if not found:
        raise TestbedError(f"{root} holds no busybox: remove it, it is fetched again.")
    return found[0]


def _fetch(directory: Path) -> None:
    announce("fetching Debian's containerd, runc, network plugins and nftables (60 MB, once)")
    debian.fetch_packages(directory, pins.NODE_PACKAGES)


def _installed() -> Programs:
    folders = [Path(folder) for folder in _PLUGIN_FOLDERS if Path(folder).is_dir()]
    paths = {Path(found).parent for name in _NEEDED if (found := shutil.which(name))}
    busybox = shutil.which("busybox")
    if not folders or busybox is None:
        raise TestbedError("network plugins (containernetworking-plugins) and a static busybox are not installed")
    programs = Programs(tuple(sorted(paths)), (), folders[0], Path(busybox))
    _check(programs)
    return programs


def _check(programs: Programs) -> None:
    for name in _NEEDED:
        programs.find(name)
    missing = [name for name in _PLUGINS if not (programs.plugins / name).is_file()]
    if missing:
        raise TestbedError(f"{programs.plugins} lacks the network plugins {', '.join(missing)}.")
