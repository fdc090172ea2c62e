"""Writes into the target's journal that a step of the cutover is proven, before the task reports so. Proves nothing.

A task that dies in between does its work again, and finds its own word: the first of the same step, attempt and
position stays.
"""

import logging
import socket
import threading

from whimbrel_api.acknowledgements import POSITION_LENGTH, Acknowledgement, Proof
from whimbrel_api.reports import CheckReport, FreezeResult, check_passes
from whimbrel_api.tasks import Orders
from whimbrel_worker.errors import Transient
from whimbrel_worker.failpoints import reach
from whimbrel_worker.tasks.context import TaskContext
from whimbrel_worker.tasks.notices import Retries

_LOG = logging.getLogger(__name__)


def acknowledge(context: TaskContext, position: str, detail: str = "", *, proof: Proof | None = None) -> None:
    """Write that the task's step is proven at this position, and those before it; nothing where no step is named.

    `proof`: instead of the task file's. Raises Transient while the target does not answer.
    """
    proof = proof or context.file.proof
    if not proof.step:
        return
    who = _who(context)
    told = [_told(proof, step, proof.position, f"the operator, by {who}") for step in proof.before]
    told.append(_told(proof, proof.step, position, who, detail))
    control = context.target.control()
    kept = [control.acknowledge(each) for each in told]
    reach("acknowledged")
    context.report.update(acknowledged=kept)


def acknowledge_rest(context: TaskContext, found: FreezeResult) -> None:
    """The same of a source that has come to rest; a second look that finds it elsewhere proves nothing."""
    if context.file.freeze.since in ("", found.position):
        acknowledge(context, found.position, f"quiet for {found.quiet_seconds:.1f} s")


def acknowledge_check(context: TaskContext, found: CheckReport) -> None:
    """The same of a comparison that lets the cutover pass, at the position that the task was given for it."""
    proof = context.file.proof
    if check_passes(found.result, found.differences, found.inconclusive, proof.differences):
        figures = f"{found.differences.total} differences in {found.rows_compared} rows"
        acknowledge(context, proof.position, f"{found.result}: {figures} of {found.tables_compared} tables compared")


def _told(proof: Proof, step: str, position: str, who: str, detail: str = "") -> Acknowledgement:
    return Acknowledgement(
        step=step,
        plan=proof.plan,
        attempt=proof.attempt,
        position=position[:POSITION_LENGTH],
        by=who[:512],
        detail=detail[:1024],
    )


def _who(context: TaskContext) -> str:
    """This worker: its task and index, the pod or machine that it runs on, the epoch that it was told."""
    file = context.file
    epoch = f", epoch {file.epoch}" if file.epoch else ""
    return f"{file.task_id}-{file.index} on {socket.gethostname()}{epoch}"


class DrainWord:
    """A stream's word that it has reached a position: written by a thread, so that the stream goes on meanwhile."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._thread: threading.Thread | None = None
        self._written = Orders()
        self._error: BaseException | None = None
        self._retries = Retries()

    def written(self, orders: Orders) -> bool:
        """Whether it stands in the journal; else it is being written. Raises what keeps it out of there for good."""
        if not orders.proof.step or self._context.file.index:
            return True
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            if self._error is not None:
                raise self._error
        wanted = Orders(drain_to=orders.drain_to, proof=orders.proof)
        if self._thread is None and self._written != wanted:
            self._thread = threading.Thread(target=self._write, args=(wanted,), name="drain", daemon=True)
            self._thread.start()
        return self._written == wanted

    def _write(self, wanted: Orders) -> None:
        try:
            acknowledge(self._context, wanted.drain_to, proof=wanted.proof)
        except Transient as failure:
            self._retries.say(_LOG, "the target's journal does not take yet that the stream has drained: %s", failure)
        except BaseException as error:  # noqa: BLE001 - handed to the task, which raises it
            self._error = error
        else:
            self._written = wanted
