"""Errors of reading manifests: what a person is told when one is refused. Nothing is read here.

ManifestError
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a manifest.

    `origin` is the file, `document` counts from 1, `line` from 1 (0: not known), `resource` is `Kind/name`,
    `path` the field as the manifest writes it, such as `spec.source.mysql.port`.
    """

    origin: str
    document: int
    line: int
    resource: str
    path: str
    what: str

    def __str__(self) -> str:
        """One line: where, then what."""
        place = f"{self.origin}:{self.line}" if self.line else self.origin
        subject = f"{self.resource}: " if self.resource else ""
        field = f"{self.path}: " if self.path else ""
        return f"{place} (document {self.document}): {subject}{field}{self.what}"


class ManifestError(ValueError):
    """Manifests that are not taken; `problems` holds all that is wrong with them, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
