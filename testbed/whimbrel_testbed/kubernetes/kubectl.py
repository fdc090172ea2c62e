"""`kubectl` as a command: which one, and how it is run against one kubeconfig."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from whimbrel_testbed import cache, debian, pins
from whimbrel_testbed.cache import TestbedError, announce

TIMEOUT_SECONDS = 60.0
_PROGRAM = Path("usr", "bin", "kubectl")


@functools.cache
def kubectl_binary() -> Path:
    """Return kubectl: of PATH, or of $KUBEBUILDER_ASSETS, or Debian's package, kept in the cache."""
    found = shutil.which("kubectl") or shutil.which("kubectl", path=os.environ.get("KUBEBUILDER_ASSETS", ""))
    if found:
        return Path(found)
    return cache.entry(f"kubectl-debian-{pins.KUBECTL_SUITE}", _fetch) / _PROGRAM


def _fetch(directory: Path) -> None:
    announce("no kubectl on PATH: fetching Debian's (once)")
    try:
        debian.fetch_packages(directory, [pins.KUBECTL_PACKAGE], suite=pins.KUBECTL_SUITE)
    except TestbedError as error:
        raise TestbedError(f"No kubectl: put one on PATH, or let it be fetched, which failed. {error}") from error
    if not (directory / _PROGRAM).is_file():
        raise TestbedError(
            f"Debian's package {pins.KUBECTL_PACKAGE} no longer holds /{_PROGRAM}: put a kubectl on PATH yourself."
        )


def run_kubectl(options: list[str], arguments: tuple[str, ...], text: str | None, timeout: float) -> str:
    """Run kubectl with options that say which cluster is meant; return its standard output. `text` is its input.

    Raises TestbedError with kubectl's own words where it fails, and after `timeout` seconds. The arguments show in the
    error and in the process list: a Secret's value belongs into `text`.
    """
    shown = f"kubectl {' '.join(arguments)}"
    try:
        done = subprocess.run(
            [str(kubectl_binary()), *options, *arguments], input=text, capture_output=True, text=True, check=False,
            timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"`{shown}` did not end within {timeout:.0f} s.") from error
    if done.returncode != 0:
        raise TestbedError(f"`{shown}` failed (exit code {done.returncode}): {done.stderr.strip()}")
    return done.stdout
