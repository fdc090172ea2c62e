"""Builds the image as root with buildah, on a base made by debootstrap, and runs commands in it; and reads its lock.
Nothing is pulled: the packages come from where this machine's apt and pip get theirs."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from whimbrel_testbed.debian import choose_mirror, machine_sources

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
BASE = "localhost/whimbrel-test-base:trixie"
_NEEDED = ("buildah", "debootstrap")
_CERTIFICATES, _PIP_SETTINGS = Path("/etc/ssl/certs"), Path("/etc/pip.conf")

needs_builder = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, _NEEDED)),
    reason=f"building an image needs root and {' and '.join(_NEEDED)}: apt install {' '.join(_NEEDED)}",
)


def locked() -> dict[str, dict[str, set[str]]]:
    """The image's lock: for each package its versions, and for each of those the hashes of its archives."""
    found: dict[str, dict[str, set[str]]] = {}
    text = (ROOT / "locks" / "image.txt").read_text("utf-8")
    for name, version, rest in re.findall(r"^([a-z0-9-]+)==(\S+)((?:.*\\\n)+.*)", text, re.MULTILINE):
        found.setdefault(name, {})[version] = set(re.findall(r"sha256:([0-9a-f]{64})", rest))
    return found


def buildah(*arguments: str | Path) -> str:
    """What a buildah command printed; fails with its words."""
    return _run(["buildah", *map(str, arguments)])


def _run(command: Sequence[str], **settings: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    return _printed(done)


def _printed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


def base(folder: Path) -> str:
    """A small Debian with Python, as an image, made where there is none yet in a folder that goes again; its name."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return BASE
    mirror = choose_mirror(machine_sources())
    assert mirror is not None, "this machine's apt sources name no Debian mirror, which debootstrap needs"
    packages = "--include=python3,python3-venv,ca-certificates"
    container = buildah("from", "scratch")
    try:
        # What it mounts in there goes with it, however it ends.
        apart = ["unshare", "--mount", "debootstrap", "--variant=minbase", packages, "trixie", str(folder), mirror.uri]
        _run(apart)
        for packed in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(folder / packed)
        buildah("add", "--quiet", container, folder, "/")
        buildah("commit", "--quiet", container, BASE)
    finally:
        buildah("rm", container)
        shutil.rmtree(folder, ignore_errors=True)
    return BASE


def build(name: str, base_image: str, **variables: str) -> str:
    """The image by `make image` with its variables, and what that said.

    What this machine needs to reach its package index is lent to the build alone. As one layer: the cache of layers
    would grow with every change of the tree.
    """
    lent = f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro" if _CERTIFICATES.exists() else ""
    lent += f" --secret id=pip,src={_PIP_SETTINGS}" if _PIP_SETTINGS.exists() else ""
    told = {"IMAGE": name, "BASE": base_image, "BUILDER": "buildah"}
    told["ARGS"] = f"--isolation chroot --timestamp 0 --layers=false {lent}"
    command = ["make", "image", *(f"{key}={value}" for key, value in (told | variables).items())]
    apart = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return _run(command, cwd=ROOT, env=apart)


@contextmanager
def built(name: str, base_image: str, **variables: str) -> Iterator[str]:
    """The image for as long as it is needed, and what building it said."""
    told = build(name, base_image, **variables)
    try:
        yield told
    finally:
        buildah("rmi", name)


@dataclass(frozen=True)
class Container:
    """A container of an image, mounted: its files, and what its configuration says."""

    root: Path
    configuration: dict[str, Any]

    def outcome(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command as pods run it, to its end: a root that is read-only but for /tmp, the image's user, no rights.

        Not by buildah, which now and then loses what a short command printed.
        """
        user, environment = self.configuration["User"], self.configuration["Env"]
        script = (
            'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"'
            ' && mount -t proc proc "$0/proc" && user="$1" && shift'
            ' && exec setpriv --no-new-privs chroot --userspec "$user" --groups= "$0" env -i "$@"'
        )
        told = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, str(self.root), user]
        return subprocess.run([*told, *environment, *command], capture_output=True, text=True, check=False)

    def run(self, *command: str) -> str:
        """What a command printed; fails with its words."""
        return _printed(self.outcome(*command))


@contextmanager
def container(name: str) -> Iterator[Container]:
    """A container of an image that is there, for as long as it is needed."""
    made = buildah("from", "--pull-never", name)
    try:
        told = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
        yield Container(Path(buildah("mount", made)), told)
    finally:
        buildah("rm", made)
