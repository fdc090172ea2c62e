"""Both sides of a table of items in memory, and comparisons of them by the product's own code. Finds nothing itself."""

import copy
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from support.items_in_memory import Item, Side, item_table
from whimbrel_worker.engine.compare import steady
from whimbrel_worker.engine.compare.comparison import Comparison
from whimbrel_worker.engine.compare.findings import Findings
from whimbrel_worker.engine.compare.lanes import Lane
from whimbrel_worker.engine.compare.merge import Step
from whimbrel_worker.engine.compare.recheck import Recheck
from whimbrel_worker.engine.ports import SourceReader, TargetReader
from whimbrel_worker.values.columns import Table


@dataclass
class Still:
    """No stream."""

    exists: bool = False

    def caught_up(self) -> bool:
        return True


@dataclass
class Pair:
    """Both sides of a table, and a comparison of them."""

    table: Table = field(default_factory=item_table)
    source: Side = field(default_factory=lambda: Side(b"left"))
    target: Side = field(default_factory=lambda: Side(b"right", page=5, backwards=True))
    findings: Findings = field(default_factory=Findings)
    seen: Counter[str] = field(default_factory=Counter)
    flow: Any = field(default_factory=Still)
    attempts: int = 0
    backoff: float = 0.0

    def both(self, *items: Item) -> None:
        for item in items:
            self.source.put(item)
            self.target.put(copy.deepcopy(item))

    def comparison(self, index: int = 0, workers: int = 1) -> Comparison:
        lanes = [self.lane() for _ in range(3)]
        waited = threading.Event()
        other = lanes[0]
        again = Recheck(
            other.source, other.target, self.flow, self.findings, self.attempts, self.backoff,
            lambda seconds: cast("None", waited.wait(seconds)),
        )  # fmt: skip
        return Comparison(lanes, again, self._count, index, workers)

    def lane(self) -> Lane:
        source, target = cast("SourceReader", self.source), cast("TargetReader", self.target)
        return Lane(steady.SteadySource(source), steady.SteadyTarget(target))

    def _count(self, table: Table, step: Step) -> None:
        self.seen.update(rows=step.rows, looked_up=step.looked_up)

    def compare(self, index: int = 0, workers: int = 1) -> Findings:
        with self.findings:
            self.findings.begin(self.table)
            self.comparison(index, workers).table(self.table)
        return self.findings


def many(count: int) -> list[Item]:
    """Items k00000, k00001 and so on."""
    return [{"id": {"S": f"k{number:05}"}, "val": {"N": str(number)}, "t": {"S": "x" * 20}} for number in range(count)]


def listed(path: Path) -> list[dict[str, Any]]:
    """What a list of findings holds."""
    return [json.loads(line) for line in path.read_text().splitlines()]
