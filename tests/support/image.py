"""Builds the image as root with buildah, on a base made by debootstrap, and runs commands in it; and reads its lock.
Nothing is pulled: the packages come from where this machine's apt and pip get theirs."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
BASE = "localhost/whimbrel-test-base:trixie"
_NEEDED = ("buildah", "debootstrap")
_LENT = (Path("/etc/ssl/certs"), Path("/etc/pip.conf"))

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
    done = subprocess.run(["buildah", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


def _debian_mirror() -> str:
    """The package server that this machine's apt uses."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=True
    )
    return next(line for line in told.stdout.split() if line.rstrip("/").endswith("/debian")).rstrip("/")


def base(folder: Path) -> str:
    """A small Debian with Python, as an image, made in a folder where there is none yet; its name."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return BASE
    packages = "--include=python3,python3-venv,ca-certificates"
    told = ["debootstrap", "--variant=minbase", packages, "trixie", str(folder), _debian_mirror()]
    subprocess.run(told, check=True, capture_output=True)
    for packed in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(folder / packed)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, folder, "/")
    buildah("commit", "--quiet", "--rm", container, BASE)
    return BASE


def build(name: str, base_image: str, **variables: str) -> str:
    """The image by `make image` with its variables, and what that said.

    What this machine needs to reach its package index is lent to the build alone. As one layer: the cache of layers
    would grow with every change of the tree.
    """
    lent = " ".join(f"--volume={path}:{path}:ro" for path in _LENT if path.exists())
    told = {"IMAGE": name, "BASE": base_image, "BUILDER": "buildah"}
    told["ARGS"] = f"--isolation chroot --timestamp 0 --layers=false {lent}"
    command = ["make", "image", *(f"{key}={value}" for key, value in (told | variables).items())]
    apart = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=apart)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


def outcome(container: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in a container as the image's user, to its end."""
    told = ["buildah", "run", "--isolation", "chroot", container, "--", *command]
    return subprocess.run(told, capture_output=True, text=True, check=False)


def run(container: str, *command: str) -> str:
    """What a command in a container printed; fails with its words."""
    done = outcome(container, *command)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


def run_read_only(root: str, environment: Sequence[str], *command: str) -> subprocess.CompletedProcess[str]:
    """A command in a mounted container as pods run it: read-only but for /tmp, as the image's user, without rights."""
    script = (
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"'
        ' && mount -t proc proc "$0/proc"'
        ' && exec setpriv --no-new-privs chroot --userspec 65532:65532 --groups= "$0" env -i "$@"'
    )
    told = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, root, *environment, *command]
    return subprocess.run(told, capture_output=True, text=True, check=False)
