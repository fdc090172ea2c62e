"""How long the programs take until they begin with their work: operator and workers, by an interpreter of any place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_RUNS: Final = 5
_TASK: Final = "import whimbrel_worker.runner, whimbrel_worker.tasks.{0}, boto3"
# Each program, the arguments by which it ends as soon as it would begin, and how it ends then.
_PROGRAMS: Final[Sequence[tuple[str, Sequence[str], int]]] = (
    ("operator", ("-m", "whimbrel_operator"), 2),
    ("worker", ("-m", "whimbrel_worker", "/none"), 2),
    ("worker with a copy's modules", ("-c", _TASK.format("snapshot")), 0),
    ("worker with a stream's modules", ("-c", _TASK.format("stream")), 0),
)
# Runs where the programs are, so that what it takes to get there is not counted.
_STOPWATCH: Final = """
import json, os, subprocess, sys, time
arguments, code, runs = json.loads(sys.argv[1])
spent = []
for _ in range(runs):
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    spent.append(time.perf_counter() - began)
    if done.returncode != code:
        sys.exit(f"{arguments} ended with {done.returncode}: {done.stderr[-500:]}")
used = os.times()
print(json.dumps([spent[0], min(spent), (used.children_user + used.children_system) / runs]))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One program's seconds from its first instruction to its first own work: the first time, the best time, and the
    CPU time of one start."""

    program: str
    first: float
    best: float
    cpu: float


def measure(python: Sequence[str]) -> list[Start]:
    """Start each program a few times by a command that runs Python; raises RuntimeError where one does not start."""
    starts = []
    for program, arguments, code in _PROGRAMS:
        command = [*python, "-c", _STOPWATCH, json.dumps([arguments, code, _RUNS])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_surroundings())
        if done.returncode:
            raise RuntimeError(f"the {program} does not start: {done.stderr.strip()}")
        starts.append(Start(program, *json.loads(done.stdout)))
    return starts


def _surroundings() -> dict[str, str]:
    """Without a cluster: the operator says so and ends."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("KUBE", "WHIMBREL_"))}
    return kept | {"KUBECONFIG": "/none"}


def table(starts: Sequence[Start]) -> str:
    """One line for each program."""
    lines = [f"{'seconds to its first own work':34} {'first':>7} {'best':>7} {'CPU':>7}"]
    return "\n".join([*lines, *(f"{one.program:34} {one.first:7.2f} {one.best:7.2f} {one.cpu:7.2f}" for one in starts)])


def here() -> list[Start]:
    """The programs of this environment."""
    return measure([sys.executable])
