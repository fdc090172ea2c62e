"""Secrets as directories of files, read anew at every use so that a rotated one counts. Values are never kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whimbrel_worker.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where each Secret's files are, by Secret name."""

    directories: Mapping[str, str]

    def path(self, name: str, key: str) -> Path:
        """The file of one key. Raises ConfigurationError when it is not there."""
        directory = self.directories.get(name)
        if directory is None or not (Path(directory) / key).is_file():
            raise ConfigurationError(
                f"Secret {name} has no key {key}",
                why="or there is no such Secret in the resource's own namespace",
                todo=f"make it, it is tried again within 5 minutes; kubectl describe secret {name} shows its keys, "
                f"in a local run they are the files in the folder {name} of its secrets",
            )
        return Path(directory) / key

    def read(self, name: str, key: str) -> str:
        """The value of one key, without a newline at its end."""
        return self.path(name, key).read_text().rstrip("\n")

    def find(self, name: str, key: str) -> str | None:
        """The value of a key that may be missing."""
        directory = self.directories.get(name)
        return self.read(name, key) if directory and (Path(directory) / key).is_file() else None
