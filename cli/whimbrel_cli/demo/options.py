"""What a demo is asked for. How it is asked on the command line stands in commands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

EXAMPLE: Final = Path(__file__).resolve().parents[3] / "examples" / "mysql-to-aurora-dsql.yaml"


@dataclass(frozen=True)
class Options:
    """Rows changed a second, rows loaded of each table (all: None), seconds after which it gives up."""

    example: Path = EXAMPLE
    keep: bool = False
    rate: float = 200.0
    rows: int | None = None
    seed: int = 1
    timeout: float = 300.0
