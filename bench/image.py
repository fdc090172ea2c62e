"""The image in figures: `python -m bench.image NAME`, its layers' sizes and how fast its programs start. Needs buildah,
and root where buildah does; what is measured about starts stands in start.py."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import start

_LAYERS = ("the base, stripped", "the packages", "Whimbrel", "the bill of materials")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, in bytes: as a registry keeps it, and unpacked."""

    packed: int
    unpacked: int


def layers(image: str) -> list[Layer]:
    """The layers that hold files, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        _buildah("push", "--quiet", image, f"oci:{folder}/image:figures")
        blobs = Path(folder) / "image" / "blobs" / "sha256"
        index = json.loads((blobs.parents[1] / "index.json").read_text("utf-8"))
        manifest = _blob(blobs, index["manifests"][0]["digest"])
        found = [blobs / each["digest"].removeprefix("sha256:") for each in manifest["layers"]]
        return [Layer(path.stat().st_size, _unpacked(path)) for path in found]


def _blob(blobs: Path, digest: str) -> Any:
    return json.loads((blobs / digest.removeprefix("sha256:")).read_text("utf-8"))


def _unpacked(path: Path) -> int:
    with gzip.open(path) as stream:
        return sum(len(chunk) for chunk in iter(lambda: stream.read(_CHUNK), b""))


def table(found: Sequence[Layer]) -> str:
    """One line for each layer and one for all."""
    names = _LAYERS if len(found) == len(_LAYERS) else [f"layer {number}" for number in range(1, len(found) + 1)]
    total = Layer(sum(one.packed for one in found), sum(one.unpacked for one in found))
    lines = [f"{'MB':34} {'packed':>7} {'on disk':>8}"]
    for name, one in [*zip(names, found, strict=True), ("together", total)]:
        lines.append(f"{name:34} {one.packed / 1e6:7.1f} {one.unpacked / 1e6:8.1f}")
    return "\n".join(lines)


@contextmanager
def _container(image: str) -> Iterator[str]:
    made = _buildah("from", "--pull-never", image)
    try:
        yield made
    finally:
        _buildah("rm", made)


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def main(arguments: Sequence[str]) -> int:
    """Print the figures of one image; 1 where they cannot be had."""
    if len(arguments) != 1 or not shutil.which("buildah"):
        sys.stderr.write("usage: python -m bench.image NAME, where buildah is installed and NAME is built\n")
        return 1
    isolation = ["--isolation", "chroot"] if os.geteuid() == 0 else []
    try:
        print(table(layers(arguments[0])))
        with _container(arguments[0]) as container:
            print(start.table(start.measure(["buildah", "run", *isolation, container, "--", "python"])))
    except (subprocess.CalledProcessError, RuntimeError) as error:
        sys.stderr.write(f"image-figures: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
