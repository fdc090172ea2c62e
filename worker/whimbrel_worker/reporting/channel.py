"""Opens the way that a task file names for reports and orders: files, or a WorkerReport on the API server."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from whimbrel_api.tasks import Orders, TaskFile, TaskKind
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.reporting.courier import Courier
from whimbrel_worker.reporting.ending import Ending
from whimbrel_worker.reporting.files import FileMailbox, FileSink
from whimbrel_worker.reporting.ports import Mailbox, Sink


@dataclass(frozen=True, slots=True)
class Channel:
    """Where reports go and orders come from; `where` is for messages."""

    where: str
    sink: Sink
    mailbox: Mailbox


def _first_orders(file: TaskFile) -> Orders:
    """What holds until orders have come: a way back that may be paused, or held for a rollback, takes nothing."""
    return Orders(hold=file.task is TaskKind.REVERSE)


@contextlib.contextmanager
def opened(file: TaskFile, environment: Mapping[str, str], ending: Ending) -> Iterator[Channel]:
    """The channel that the task file names. Raises ConfigurationError when it names none or none that can be used."""
    if file.report_resource is not None:
        # Only here, because the client takes half a second to import and the local runtime does not need it.
        from whimbrel_worker.reporting.apiserver import ApiServerReport

        post = ApiServerReport(file.report_resource, file.index, environment)
        courier = Courier(post, ending, first=_first_orders(file))
        courier.start()
        with contextlib.closing(courier):
            yield Channel(post.where, courier, courier)
    elif file.report_file:
        orders = Path(file.orders_file) if file.orders_file else None
        yield Channel(file.report_file, FileSink(Path(file.report_file)), FileMailbox(orders))
    else:
        raise ConfigurationError(
            "the task file names no place for reports",
            where=f"task {file.task_id}",
            why="a worker whose result nobody can read has not done its work",
            todo="give it reportResource (on a cluster), or reportFile and ordersFile",
        )
