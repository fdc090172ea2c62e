"""Writes a volume's files as a kubelet does: all at once, by the swap of one symbolic link."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from whimbrel_testbed.kubernetes.agent.volumes import File

_CURRENT = "..data"


def write_atomically(folder: Path, files: Mapping[str, File]) -> None:
    """Make `files` the content of the folder. A reader sees all of the old files or all of the new ones.

    The files stand in a hidden folder that `..data` points to; each visible name is a link through `..data`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / _CURRENT
    former = current.readlink().name if current.is_symlink() else None
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    fresh.chmod(0o755)
    for path, file in files.items():
        _write(fresh / _inside(path), file)
    step = folder / "..data_tmp"
    step.unlink(missing_ok=True)
    step.symlink_to(fresh.name)
    step.replace(current)
    _relink(folder, {PurePosixPath(path).parts[0] for path in files})
    if former is not None:
        shutil.rmtree(folder / former)


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError(f"a volume's file must stand inside of it, not at {path}")
    return path


def _write(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(file.content)
    path.chmod(file.mode)


def _relink(folder: Path, names: set[str]) -> None:
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_CURRENT}/{name}")
    for entry in folder.iterdir():
        if entry.is_symlink() and entry.name != _CURRENT and entry.name not in names:
            entry.unlink()
