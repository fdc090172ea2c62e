"""What a demo is asked for. How it is asked on the command line stands in commands."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

_EXAMPLES: Final = Path(__file__).resolve().parents[3] / "examples"


class Pair(StrEnum):
    """From what a demo moves, and where to."""

    MYSQL = "mysql"
    DYNAMODB = "dynamodb"

    @property
    def example(self) -> Path:
        """The manifest that a demo of this pair runs."""
        names = {Pair.MYSQL: "mysql-to-aurora-dsql.yaml", Pair.DYNAMODB: "dynamodb-to-polardb.yaml"}
        return _EXAMPLES / names[self]


@dataclass(frozen=True)
class Options:
    """Rows changed a second, rows loaded of each table (all: None), seconds after which it gives up.

    `way_back`: the cutover arms one, and it is gone back at the end.
    """

    example: Path
    pair: Pair = Pair.MYSQL
    keep: bool = False
    rate: float = 200.0
    rows: int | None = None
    seed: int = 1
    timeout: float = 300.0
    way_back: bool = False
