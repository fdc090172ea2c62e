"""The control plane's program: named by the user, or built once from the Go modules and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from whimbrel_testbed import cache
from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.kubernetes.compiler import Compiler, said
from whimbrel_testbed.kubernetes.golang import go_toolchain

SOURCE = Path(__file__).parents[1] / "controlplane"
_FILES = ("go.mod", "go.sum", "main.go")
_PROGRAM = "whimbrel-controlplane"
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def control_plane_binary(progress: Callable[[str], None] = cache.announce) -> Path:
    """Return the program: $WHIMBREL_CONTROLPLANE, or the cache's, built now where it is missing (some minutes).

    Raises TestbedError where there is no Go, no network or no space, and where the build fails.
    """
    chosen = os.environ.get("WHIMBREL_CONTROLPLANE")
    if not chosen:
        return cache.entry(entry_name(), lambda directory: _build(directory, progress)) / _PROGRAM
    path = Path(chosen)
    if not os.access(path, os.X_OK) or path.is_dir():
        raise TestbedError(f"WHIMBREL_CONTROLPLANE={chosen} is no program that can be run: set another, or unset it.")
    progress(f"using the control plane that WHIMBREL_CONTROLPLANE names: {path}")
    return path.absolute()


def entry_name(source: Path = SOURCE) -> str:
    """Return the cache entry's name: of the version, the architecture and all that is compiled."""
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((source / name).read_bytes())
    version, architecture = kubernetes_version((source / "go.mod").read_text()), go_architecture()
    digest.update(" ".join(_flags(version)).encode())
    return f"kubernetes-{version}-{architecture}-{digest.hexdigest()[:12]}"


def kubernetes_version(module: str) -> str:
    """Read the version out of go.mod.

    >>> kubernetes_version("require (\\n\\tk8s.io/kubernetes v1.36.3\\n)")
    'v1.36.3'
    """
    found = re.search(r"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)$", module, re.MULTILINE)
    if found is None:
        raise TestbedError("The control plane's go.mod requires no k8s.io/kubernetes.")
    return found.group(1)


def go_architecture(machine: str | None = None) -> str:
    """Return Go's name of an architecture, of this machine's where none is named."""
    name = machine or platform.machine()
    try:
        return _ARCHITECTURES[name.lower()]
    except KeyError:
        raise TestbedError(
            f"The control plane is built for amd64 and arm64; this machine is {name}. "
            "Build it elsewhere and set WHIMBREL_CONTROLPLANE to the program."
        ) from None


def _flags(version: str) -> list[str]:
    package = "k8s.io/component-base/version"
    major, minor, _ = version.removeprefix("v").split(".")
    values = f"-X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    # Without -buildvcs=false Go asks git about the tree around, and fails where that belongs to another account.
    return ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {values}"]


def _build(directory: Path, progress: Callable[[str], None]) -> None:
    version = kubernetes_version((SOURCE / "go.mod").read_text())
    progress(f"building Kubernetes {version} from its Go modules: once, 5 minutes on two cores, 3 GB while it builds")
    _remove_leftovers(directory)
    with tempfile.TemporaryDirectory(prefix=f".{entry_name()}.", dir=directory.parent) as scratch:
        toolchain = go_toolchain(go_architecture(), Path(scratch), progress)
        compiler = Compiler(toolchain, SOURCE, progress)
        packages = compiler.fetch()
        compiler.build(packages, _flags(version), directory / _PROGRAM)
    name = said(directory / _PROGRAM, "kube-apiserver", "--version").strip()
    progress(f"{name} is built and kept in the cache")


def _remove_leftovers(directory: Path) -> None:
    """Remove what a killed build left in the cache: gigabytes, and nobody else builds while the lock is held."""
    for path in directory.parent.glob(f".{entry_name()}.*"):
        if path != directory:
            shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    """Have the program ready; 0, or 1 with the reason."""
    try:
        control_plane_binary()
    except TestbedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
