"""A worker process without databases: `python fake_worker.py TASKFILE`, over the `World` in $WHIMBREL_WORLD."""

import fcntl
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.world import World
from whimbrel_api.reports import WorkerReport, WorkerState
from whimbrel_api.tasks import ExitCode, Orders, TaskFile

TURN = 0.05


def turn(task: TaskFile, world_file: Path, orders: Orders) -> tuple[WorkerReport, ExitCode | None]:
    """One turn in the world, alone in it."""
    with (world_file.parent / "world.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        world = World.model_validate_json(world_file.read_text())
        answer = world.work(task, orders, datetime.now(UTC))
        fresh = world_file.with_suffix(f".{os.getpid()}")
        fresh.write_text(world.model_dump_json())
        fresh.replace(world_file)
    return answer


def say(report: WorkerReport, path: Path) -> None:
    """Replace the report."""
    fresh = path.with_suffix(".new")
    fresh.write_text(report.model_dump_json(by_alias=True))
    fresh.replace(path)


def main(task_path: str) -> int:
    """Take turns until the task ends or SIGTERM comes."""
    told: list[int] = []
    stubborn = bool(os.environ.get("WHIMBREL_STUBBORN"))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else lambda number, _: told.append(number))
    task = TaskFile.model_validate_json(Path(task_path).read_text())
    orders_file, report_file = Path(task.orders_file), Path(task.report_file)
    print(f"{task.task} {task.task_id} begins", file=sys.stderr, flush=True)
    while True:
        orders = Orders.model_validate_json(orders_file.read_text()) if orders_file.exists() else Orders()
        report, code = turn(task, Path(os.environ["WHIMBREL_WORLD"]), orders)
        if told and code is None:
            say(report.model_copy(update={"state": WorkerState.STOPPED}), report_file)
            return ExitCode.TOLD_TO_STOP
        say(report, report_file)
        if code is not None:
            return code
        time.sleep(TURN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
