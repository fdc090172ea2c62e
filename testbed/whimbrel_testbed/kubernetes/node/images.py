"""Images of a real node: the one that holds a pod's namespaces, made here, and how an archive gets into the node."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from whimbrel_testbed.cache import run
from whimbrel_testbed.kubernetes.node.programs import Programs

PAUSE = "localhost/whimbrel-pause:1"
_FOREVER = str(2**31 - 1)
_LOAD_SECONDS = 300.0


def pause_archive(program: bytes, architecture: str) -> bytes:
    """Return an image archive (as `docker save` writes it) whose one program, a static busybox, sleeps for ever.

    The same program gives the same archive.
    """
    layer = _tar({"busybox": (program, 0o755)})
    configuration = json.dumps({
        "architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/busybox", "sleep", _FOREVER]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }).encode()  # fmt: skip
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    files = {name: configuration, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    return _tar({name: (content, 0o644) for name, content in files.items()})


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def load_archive(programs: Programs, socket: Path, archive: Path) -> None:
    """Give an image archive (Docker's or OCI's form, with its name in it) to the containerd that listens there.

    Raises TestbedError with containerd's words.
    """
    where = ("--address", str(socket), "--namespace", "k8s.io")
    command = programs.command("ctr", *where, "images", "import", str(archive))
    run(command, what=f"Loading {archive.name} into the node", timeout=_LOAD_SECONDS)
